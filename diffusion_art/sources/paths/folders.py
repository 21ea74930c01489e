"""What the names of folders say: a class of pictures, columns (Hive's `style=Cubism/`), nothing (`images/`), and what
kohya's are for: `img/10_name/` holds pictures to learn from, each ten times; `reg/1_person/` beside it those that keep
a fine-tuned model from forgetting, which do not belong to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from diffusion_art.sources.paths.names import nfc, words
from diffusion_art.sources.paths.splits import FolderSplits

_REPEATS = re.compile(r"(\d{1,4})_(?=\S)(.+)", re.DOTALL)  # 10_name
REGULARISATION = "pictures of kohya's folder for regularisation; to learn from them, give it as source.path"

_REGULARISATION = re.compile(r"reg(ulari[sz]ation)?(?:[_ -]?(?:images?|imgs?|data))?", re.IGNORECASE)
_IMAGES = {"image", "images", "img", "imgs", "jpegimages", "photos", "pictures", "jpg", "png"}
_LAYOUT_WORDS = _IMAGES | {"data", "dataset", "files", "resized", "cropped", "thumbnails", "thumbs"}
_CLASS_NUMBER = re.compile(r"^\d+\.\s*(?=[^\W\d_])")  # 001.Black_footed_Albatross
_PART = re.compile(r"(part|batch|chunk|shard|group|volume|vol|folder|dir|subset|set) ?\d+")  # of anything
_IN_CLASS_FOLDERS = 0.9  # of the pictures; where fewer are, folders are there for order
_WORD = re.compile(r"[^\W\d_]")
_COLUMN_AND_VALUE = re.compile(r"([^\W\d]\w*)=(.+)", re.DOTALL)  # Hive's style=Cubism
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def is_layout(folder: str) -> bool:
    """Whether a folder's name tells nothing of the pictures in it: `flickr30k_images`, `part-00012`."""
    name = words(folder).lower()
    return name.rpartition(" ")[2] in _LAYOUT_WORDS or bool(_PART.fullmatch(name))


def columns_of_folders(file: str) -> dict[str, str]:
    """The columns that the folders above a file tell: Hive's `style=Cubism/artist=Juan%20Gris/0.parquet`."""
    if "=" not in file:
        return {}
    found = (_COLUMN_AND_VALUE.fullmatch(folder) for folder in file.split("/")[:-1])
    return {match[1]: "" if match[2] == _HIVE_NULL else nfc(unquote(match[2])) for match in found if match}


def names_of_columns(files: Iterable[str]) -> list[str]:
    """Of all columns that the folders above `files` tell."""
    return list(dict.fromkeys(name for file in files for name in columns_of_folders(file)))


class FolderNames:
    """The class that a folder's name gives to the pictures in it, and kohya's repeats (`10_name`)."""

    def __init__(self, splits: FolderSplits) -> None:
        self._splits = splits
        self._known: dict[str, tuple[str, str]] = {}

    def of(self, file: str) -> tuple[str, str]:
        """(name, repeats) of the nearest folder that tells anything, as text; ("", "") where none does."""
        folder = file[: max(file.rfind("/"), 0)]
        if folder not in self._known:
            self._known[folder] = self._read(folder)
        return self._known[folder]

    def _read(self, folder: str) -> tuple[str, str]:
        while folder:
            parent, _, name = folder.rpartition("/")
            numbered = _REPEATS.fullmatch(name)
            repeats, bare = (numbered[1], numbered[2]) if numbered else ("", name)
            telling = _WORD.search(bare) and not is_layout(bare) and not _COLUMN_AND_VALUE.fullmatch(bare)
            if telling and not self._splits.names(folder):
                return words(_CLASS_NUMBER.sub("", bare)), repeats.lstrip("0")
            folder = parent
        return "", ""


def class_names(files: Sequence[str], folders: FolderNames) -> list[str]:
    """The class of each picture by its folder; all "" where not nearly all lie in telling folders."""
    names = [folders.of(file)[0] for file in files]
    return names if sum(map(bool, names)) >= max(1, _IN_CLASS_FOLDERS * len(names)) else [""] * len(names)


def regularisation(files: Iterable[str]) -> set[str]:
    """The pictures in `reg/1_person/`, where another folder such as `img/10_name/` is beside it."""
    learnt: set[str] = set()
    apart: dict[str, list[str]] = {}
    for file in files:
        *folders, name, numbered, _ = ("", "", *file.split("/"))
        if not _REPEATS.fullmatch(numbered) or not name:
            continue
        parent = "/".join(folders)
        if _REGULARISATION.fullmatch(name):
            apart.setdefault(parent, []).append(file)
        else:
            learnt.add(parent)
    return {file for parent, found in apart.items() if parent in learnt for file in found}
