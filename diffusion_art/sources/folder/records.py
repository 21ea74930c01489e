"""Pictures named by one table: a museum's csv with a column of paths, COCO's or another JSON file.

    source=csv source.path=semart/semart_train.csv
    source=json source.path=coco/annotations/captions_train2017.json

The separator, the encoding and the column of files are found by looking; pictures that the table does not name take
no part.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.sources.folder.beside import Neighbours
from diffusion_art.sources.folder.collection import Collection, assemble
from diffusion_art.sources.folder.folder import ImageFolder
from diffusion_art.sources.paths.listing import (
    JSON_SUFFIXES,
    TABLE_SUFFIXES,
    TAR_SUFFIX,
    Listing,
    list_files,
    why_unread,
)
from diffusion_art.sources.paths.names import PictureNames
from diffusion_art.sources.tables.classes import class_lists, together
from diffusion_art.sources.tables.metadata import Metadata


class Records(ImageFolder):
    """Source: the pictures that the table `path` names, in the order of their files' names.

    `images` is the folder they lie in; None is the table's own, or the one above where that has none. `delimiter`
    None is found by looking, as is `file_column`, the column that names the pictures.

    Raises:
        UserError: no table, no pictures, or (when it is read) a table that is damaged or names none of them.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        images: str | Path | None = None,
        file_column: str | None = None,
        delimiter: str | None = None,
        name: str | None = None,
        caption_template: str | None = None,
    ) -> None:
        self.table = Path(path)
        if not self.table.is_file():
            raise UserError(f"there is no file {self.table}. Give the table that names the pictures: source.path=...")
        if reason := why_unread(self.table.suffix.lower()):
            raise UserError(f"{self.table} is no table that can be read: {reason}.")
        listing = _listing_around(self.table, None if images is None else Path(images))
        super().__init__(listing.root, name=name, caption_template=caption_template, listing=listing)
        self._file_column, self._delimiter = file_column, _separator(delimiter)

    def describe(self) -> dict[str, Any]:
        facts = self.table.stat()
        others = TABLE_SUFFIXES - JSON_SUFFIXES | {TAR_SUFFIX}
        return {
            "kind": "table",
            "table": [self.table.name, facts.st_size, facts.st_mtime_ns],
            "files": self._listing.without(others).digest(),
            "file_column": self._file_column,
            "delimiter": self._delimiter,
        }

    @cached_property
    def _collection(self) -> Collection:
        pictures = self._listing.pictures()
        metadata = Metadata(
            self._listing, PictureNames(pictures), file_column=self._file_column, delimiter=self._delimiter
        )
        table = Path(os.path.relpath(self.table, self.path)).as_posix()
        metadata.read(table)
        named = [file for file in pictures if file in metadata.described]
        if not named:
            seen = f", columns {', '.join(metadata.seen)}" if metadata.seen else ""
            raise UserError(
                f"{self.table} names no picture below {self.path}{seen}. Give the folder of the pictures, "
                "source.images=FOLDER, or the column that names them, source.file_column=NAME."
            )
        class_names = together(names for file, names in class_lists(self._listing).items() if file != table)
        metadata.left_out["pictures that the table does not name"] += len(pictures) - len(named)
        return assemble(self._listing, named, Neighbours(self._listing, named), metadata, class_names)


def _separator(given: str | None) -> str | None:
    """UserError for what cannot cut a line. A tab may be written as in a program."""
    mark = "\t" if given in ("\\t", "tab") else given
    if mark is not None and len(mark) != 1:
        raise UserError(f"source.delimiter={given} is not one character. Give one, or leave it out: it is looked for.")
    return mark


def _listing_around(table: Path, images: Path | None) -> Listing:
    if images is not None:
        if not images.is_dir():
            raise UserError(f"there is no folder {images}. Give the one with the pictures: source.images=FOLDER.")
        return list_files(images)
    listing = list_files(table.parent)
    return listing if listing.pictures() else list_files(table.resolve().parent.parent)
