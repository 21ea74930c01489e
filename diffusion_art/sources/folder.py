"""A folder of picture files, captioned by the conventions of Hugging Face's `imagefolder`.

    paintings/starry-night.jpg      a picture, at any depth
    paintings/starry-night.txt      its caption, or else
    paintings/metadata.jsonl        {"file_name": "starry-night.jpg", "title": "The Starry Night"} per line
    paintings/metadata.csv          the same as a table; file names are relative to the metadata file

A picture that nothing describes has an empty caption and takes part unconditionally.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from diffusion_art.errors import UserError
from diffusion_art.sources.base import BadPicture, Picture
from diffusion_art.sources.captions import default_template
from diffusion_art.sources.naming import data_set_name

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm"}
METADATA_FILES = ("metadata.jsonl", "metadata.csv")
FILE_COLUMNS = ("file_name", "filename", "file")  # the first is the convention
FILES_PER_CHUNK = 64


class Entry(NamedTuple):
    """One picture of a chunk: its path below the folder, and what the metadata files say about it."""

    file: str
    columns: dict[str, str]


class ImageFolder:
    """Source: picture files below `path`, in the order of their names.

    A line of metadata without its picture counts as a bad picture.

    Raises:
        UserError: no folder, no picture in it, or a metadata file that cannot be read.
    """

    def __init__(self, path: str | Path, *, name: str | None = None, caption_template: str | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"there is no folder {self.path}. Give the folder of pictures: source.path=...")
        self.name = name or data_set_name(self.path)
        files = dict(sorted(_walk(self.path)))  # path below the folder -> bytes
        described = _read_metadata(self.path, files)
        pictures = [file for file in files if Path(file).suffix.lower() in SUFFIXES]
        if not pictures:
            raise UserError(f"{self.path} holds no pictures ({' '.join(sorted(SUFFIXES))}). Give: source.path=...")
        captioned = any(str(PurePosixPath(file).with_suffix(".txt")) in files for file in pictures)
        self._digest = hashlib.blake2b(json.dumps([files, described]).encode(), digest_size=16).hexdigest()
        self._entries = [Entry(file, described.pop(file, {})) for file in pictures]
        self._missing = [BadPicture(file, "named in the metadata, not in the folder") for file in described]
        names = {"file_name": None} | ({"caption": None} if captioned else {})
        names |= dict.fromkeys(name for entry in self._entries for name in entry.columns)
        self.count = len(self._entries) + len(self._missing)
        self.columns = tuple(names)
        self.caption_template = caption_template or default_template(names)

    def describe(self) -> dict[str, Any]:
        return {"kind": "folder", "pictures": len(self._entries), "files": self._digest}

    def left_out(self) -> dict[str, int]:
        return {}

    def chunks(self) -> Iterator[list[Entry | BadPicture]]:
        items: list[Entry | BadPicture] = [*self._entries, *self._missing]
        for start in range(0, len(items), FILES_PER_CHUNK):
            yield items[start : start + FILES_PER_CHUNK]

    def pictures(self, chunk: list[Entry | BadPicture]) -> Iterator[Picture | BadPicture]:
        for item in chunk:
            if isinstance(item, BadPicture):
                yield item
                continue
            columns = {"file_name": item.file} | item.columns
            try:
                image = (self.path / item.file).read_bytes()
                beside = (self.path / item.file).with_suffix(".txt")
                if beside.is_file():
                    columns["caption"] = beside.read_text("utf-8-sig", errors="replace")
            except OSError as error:
                yield BadPicture(item.file, str(error))
                continue
            yield Picture(image, columns, identity=image, name=item.file)

    def __getstate__(self) -> dict[str, Any]:
        """The entries travel in the chunks, not with the source to every process."""
        return self.__dict__ | {"_entries": [], "_missing": []}


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    """Every file that matters below `root`: (posix path, bytes). Hidden ones are left out."""
    wanted = SUFFIXES | {".txt"}
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and (path.suffix.lower() in wanted or name in METADATA_FILES):
                yield path.relative_to(root).as_posix(), path.stat().st_size


def _read_metadata(root: Path, files: dict[str, int]) -> dict[str, dict[str, str]]:
    """Columns by picture path, from every metadata file; the one deepest down has the last word."""
    described: dict[str, dict[str, str]] = {}
    tables = [file for file in files if Path(file).name in METADATA_FILES]
    for table in sorted(tables, key=lambda file: (file.count("/"), file)):
        rows = _read_csv(root / table) if table.endswith(".csv") else _read_jsonl(root / table)
        for line, row in rows:
            columns = {str(name): _text(value) for name, value in row.items() if not isinstance(value, dict)}
            named = next((columns.pop(name) for name in FILE_COLUMNS if columns.get(name)), "")
            place = posixpath.normpath(posixpath.join(posixpath.dirname(table), named))
            if not named or place.startswith(("/", "..")):
                what = f"names the file {named!r}, outside the folder" if named else "has no `file_name`"
                raise UserError(f"{root / table} line {line} {what}. Name a picture relative to that file.")
            described[place] = columns
    return described


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} line {number} is not JSON ({error}). Write one object a line.") from None
        if not isinstance(row, dict):
            raise UserError(f'{path} line {number} is not an object like {{"file_name": "a.jpg", ...}}.')
        yield number, row


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    table = csv.DictReader(io.StringIO(_read_text(path), newline=""), restkey="_rest")
    try:
        for row in table:
            row.pop("_rest", None)
            yield table.line_num, row
    except csv.Error as error:
        raise UserError(f"{path} line {table.line_num} is not CSV ({error}). Mend the line.") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from None


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
