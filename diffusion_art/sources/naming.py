"""A data set's name from the place it came from."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

_LAYOUT_WORDS = {"data", "train", "images", "shards", "parquet", "dataset", ""}  # folders that say nothing


def data_set_name(path: Path) -> str:
    """The nearest telling part of `path` as a folder name: lower case, digits, `-` and `_`.

    `WikiArt/data` is `wikiart`; `My Paintings.tar` is `my-paintings`.
    """
    path = path.resolve()
    parts = [path.stem if path.is_file() else path.name, *(parent.name for parent in path.parents)]
    return next((slug for part in parts if (slug := _slug(part)) not in _LAYOUT_WORDS), "pictures")


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")
