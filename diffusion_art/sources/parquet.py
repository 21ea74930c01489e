"""Pictures in parquet files, as the Hugging Face hub keeps them: one row each, one column of image bytes.

The layout of `Artificio/WikiArt` (title artist date genre style description filename image), and any other
with an image column, be it a struct of bytes and path or plain binary. Class labels become their names.
Columns that no caption can use, such as embeddings, are never read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from diffusion_art.errors import UserError
from diffusion_art.sources.base import BadPicture, Picture
from diffusion_art.sources.captions import default_template
from diffusion_art.sources.naming import data_set_name

ROWS_PER_CHUNK = 128  # about 2 MB of WikiArt, a third of a second of work
IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "picture")
_READ_AHEAD_BYTES = 2**20  # streams a column instead of holding a whole row group in memory


class Rows(NamedTuple):
    """A chunk: rows [start, stop) of one row group, `first_row` being the file's number of its row 0."""

    file: str
    row_group: int
    start: int
    stop: int
    first_row: int


class Parquet:
    """Source: a parquet file, or a folder with parquet files at any depth, read in the order of their names.

    Raises:
        UserError: nothing there, a broken file, files of different columns, or no column of images.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        image_column: str | None = None,
        caption_template: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = name or data_set_name(self.path)
        self._files = [str(file) for file in _find(self.path)]
        opened = [_open(file) for file in self._files]
        self.count = sum(file.metadata.num_rows for file in opened)
        self._row_groups = [
            [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] for file in opened
        ]
        schema = opened[0].schema_arrow
        for other, file in zip(self._files, opened):
            if file.schema_arrow.names != schema.names:
                raise UserError(
                    f"{other} has the columns {file.schema_arrow.names}, but {self._files[0]} has "
                    f"{schema.names}. Give files of one data set: source.path=FOLDER."
                )
        self._image = _image_column(schema, image_column, self._files[0])
        self._labels = _class_labels(schema)
        self._texts = [field.name for field in schema if field.name != self._image and _is_text(field.type)]
        self.columns = tuple(dict.fromkeys([*self._texts, "filename"]))
        self.caption_template = caption_template or default_template(self._texts)

    def describe(self) -> dict[str, Any]:
        root = self.path if self.path.is_dir() else self.path.parent
        files = [
            [Path(file).relative_to(root).as_posix(), Path(file).stat().st_size, _footer_digest(Path(file))]
            for file in self._files
        ]
        return {"kind": "parquet", "files": files, "image_column": self._image}

    def left_out(self) -> dict[str, int]:
        return {}

    def chunks(self) -> Iterator[Rows]:
        for file, groups in zip(self._files, self._row_groups):
            first_row = 0
            for group, rows in enumerate(groups):
                for start in range(0, rows, ROWS_PER_CHUNK):
                    yield Rows(file, group, start, min(start + ROWS_PER_CHUNK, rows), first_row)
                first_row += rows

    def pictures(self, chunk: Rows) -> Iterator[Picture | BadPicture]:
        columns = [*self._texts, self._image]
        for number, row in enumerate(_READER.rows(chunk, columns), chunk.first_row + chunk.start):
            image = row.pop(self._image)
            texts = {name: self._text(name, value) for name, value in row.items()}
            data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (image, None)
            if path and not texts.get("filename"):
                texts["filename"] = path
            name = f"{Path(chunk.file).name} row {number}" + (f" ({path})" if path else "")
            if data:
                yield Picture(data, texts, identity=data, name=name)
            else:
                yield BadPicture(name, f"no image bytes in column `{self._image}`")

    def _text(self, name: str, value: Any) -> str:
        if value is None:
            return ""
        labels = self._labels.get(name)
        if labels and isinstance(value, int):
            return labels[value] if 0 <= value < len(labels) else ""
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


class _RowReader:
    """Rows of one row group, read forwards: chunks come to a process in rising order, it seldom starts anew.

    Streaming keeps the memory at a few batches, also where a file is a single row group of many gigabytes.
    """

    def __init__(self) -> None:
        self._place: tuple[str, int, list[str]] | None = None
        self._next_row = 0
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rest: pa.RecordBatch | None = None  # of the batch that the last chunk ended in

    def rows(self, chunk: Rows, columns: list[str]) -> list[dict[str, Any]]:
        place = (chunk.file, chunk.row_group, columns)
        try:
            if place != self._place or chunk.start < self._next_row:
                self._place, self._next_row, self._rest = place, 0, None
                self._batches = _open(chunk.file).iter_batches(
                    ROWS_PER_CHUNK, row_groups=[chunk.row_group], columns=columns, use_threads=False
                )
            for _ in self._take(chunk.start - self._next_row):
                pass
            return [row for batch in self._take(chunk.stop - chunk.start) for row in batch.to_pylist()]
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            self._place = None
            what = f"row group {chunk.row_group} cannot be read ({error})"
            raise UserError(_broken(chunk.file, what)) from error

    def _take(self, count: int) -> Iterator[pa.RecordBatch]:
        """The next `count` rows, in the batches they come in."""
        self._next_row += count
        while count > 0:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                raise OSError(f"{count} rows fewer than its footer says")
            self._rest = batch.slice(count) if batch.num_rows > count else None
            yield batch.slice(0, count)
            count -= batch.num_rows


_READER = _RowReader()  # one per process; the source itself stays plain settings


def _find(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"there is no {path}. Give the parquet file or its folder: source.path=...")
    files = [file for file in path.rglob("*.parquet") if file.is_file() and not file.name.startswith(".")]
    if not files:
        raise UserError(f"{path} holds no .parquet file. Give the folder that does: source.path=...")
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


def _open(file: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, buffer_size=_READ_AHEAD_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise UserError(_broken(file, f"is no whole parquet file ({error})")) from error


def _broken(file: str, what: str) -> str:
    return f"{file} {what}. Copy or download it again."


def _image_column(schema: pa.Schema, wanted: str | None, file: str) -> str:
    def holds_bytes(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    found = [field.name for field in schema if holds_bytes(field.type)]
    if wanted is not None:
        found = [name for name in found if name == wanted]
    named = [name for name in IMAGE_COLUMNS if name in found]
    if not found:
        asked = f"`{wanted}` is no column of image bytes" if wanted else "there is no column of image bytes"
        raise UserError(f"{file}: {asked} among {schema.names}. Name it with source.image_column=NAME.")
    return (named or found)[0]


def _is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are worth a caption: text, numbers, dates, and lists of text (tags)."""
    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return not pa.types.is_nested(kind) and not pa.types.is_binary(kind) and not pa.types.is_large_binary(kind)


def _class_labels(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the Hugging Face `ClassLabel` columns, which hold integers."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: list(feature["names"])
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _footer_digest(file: Path) -> str:
    """Of the last 64 KiB: the parquet footer, with offsets and statistics of all columns."""
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - 2**16))
        return hashlib.blake2b(opened.read(), digest_size=8).hexdigest()
