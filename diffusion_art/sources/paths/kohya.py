"""What kohya's folders are for: `img/10_name/` holds pictures to learn from, each ten times; `reg/1_person/` beside it
those that keep a fine-tuned model from forgetting, which do not belong to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

REPEATS = re.compile(r"(\d{1,4})_(?=\S)(.+)", re.DOTALL)  # 10_name
REGULARISATION = "pictures of kohya's folder for regularisation; to learn from them, give it as source.path"

_REGULARISATION = re.compile(r"reg(ulari[sz]ation)?(?:[_ -]?(?:images?|imgs?|data))?", re.IGNORECASE)


def regularisation(files: Iterable[str]) -> set[str]:
    """The pictures in `reg/1_person/`, where another folder such as `img/10_name/` is beside it."""
    learnt: set[str] = set()
    apart: dict[str, list[str]] = {}
    for file in files:
        *folders, name, numbered, _ = ("", "", *file.split("/"))
        if not REPEATS.fullmatch(numbered) or not name:
            continue
        parent = "/".join(folders)
        if _REGULARISATION.fullmatch(name):
            apart.setdefault(parent, []).append(file)
        else:
            learnt.add(parent)
    return {file for parent, found in apart.items() if parent in learnt for file in found}
