"""Tables of metadata as rows: csv of any separator, JSON lines, a JSON file, XML, parquet; and the JSON about one
picture as one row.

    for line, row in read_table(path, ...):  # row: {column: raw value}

`line` says where a row stands in its file. Text is decoded as `texts.decode` has it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffusion_art.captions.columns import caption_columns, is_caption_column, names_scored, ready_captions, strings
from diffusion_art.errors import UserError
from diffusion_art.sources.paths.listing import JSON_SUFFIXES, LINES_SUFFIXES, suffix_of
from diffusion_art.sources.programs.annotators import of_labelme
from diffusion_art.sources.programs.museums import is_manifest, rows_of_manifest
from diffusion_art.sources.tables.classes import label_text, labels_of
from diffusion_art.sources.tables.delimited import SEPARATORS, Row, delimited_rows
from diffusion_art.sources.tables.json_shapes import plain_row, read_documents, rows_of
from diffusion_art.sources.tables.parquet_file import image_columns, text_columns
from diffusion_art.sources.tables.texts import CP1252_NOTE, Decoded, decode, read_text
from diffusion_art.sources.tables.xml_shapes import rows_of_xml

_LIST_OF_OBJECTS = re.compile(r"\s*\[\s*\{")
_WRAPPERS = ("data", "artObject", "object", "record", "artwork", "item", "meta", "metadata")  # round one picture's


def read_table(
    path: Path,
    notes: Counter[str],
    *,
    is_picture: Callable[[str], bool],
    delimiter: str | None = None,
    text: Decoded | None = None,
) -> Iterator[Row]:
    """The rows of `path`, by its suffix; what was odd about them is added to `notes`. `text` is its content, None where
    it is to be read.

    Raises:
        UserError: the file is damaged; the message names the line.
    """
    kind = suffix_of(path.name)
    if kind == ".parquet":
        return _parquet_rows(path)
    try:
        content, guessed = text or read_text(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}).") from error
    notes[CP1252_NOTE] += guessed
    if kind in LINES_SUFFIXES and not _LIST_OF_OBJECTS.match(content):
        return _json_lines(path, content, is_picture)
    if kind in JSON_SUFFIXES | LINES_SUFFIXES:
        return _json_rows(path, content, notes, is_picture)
    if kind == ".xml":
        return _xml_rows(path, content)
    return delimited_rows(path, content, notes, is_picture=is_picture, delimiter=delimiter)


def record_in(path: Path) -> dict[str, Any]:
    """The one record in a JSON or XML file; {} where there is another number of them."""
    try:
        text = read_text(path).text
        if suffix_of(path.name) != ".xml":
            return read_json(text)
        rows = rows_of_xml(text)
        return rows[0] if len(rows) == 1 else {}
    except (OSError, ValueError):
        return {}


def could_be_table(path: Path, is_picture: Callable[[str], bool]) -> bool:
    """Whether a `.txt` is a table: a field of one of its first two lines names a picture."""
    fields = {
        field.strip(' "')
        for line in first_lines(path)
        for mark in SEPARATORS
        if mark in line
        for field in line.split(mark)
    }
    return any(is_picture(field) for field in fields if field)


def first_lines(path: Path) -> list[str]:
    """Two at most; none of a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return decode(file.read(4096)).text.splitlines()[:2]
    except OSError:
        return []


def _json_lines(path: Path, text: str, is_picture: Callable[[str], bool]) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if line.strip() == "{":  # objects over several lines each
                yield from _json_rows(path, text, Counter(), is_picture)
                return
            raise UserError(f"{path} line {number} is not JSON ({error}). Write one object a line.") from None
        if not isinstance(row, dict):
            raise UserError(f'{path} line {number} is not an object like {{"file_name": "a.jpg", ...}}.')
        yield number, plain_row(row)


def _json_rows(path: Path, text: str, notes: Counter[str], is_picture: Callable[[str], bool]) -> Iterator[Row]:
    try:
        content = read_documents(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{") and "\n{" in text:  # lines, whatever the suffix says
            return _json_lines(path, text, is_picture)
        raise UserError(f"{path} is not JSON ({error}). Write a list of objects.") from None
    return enumerate(rows_of(content, notes, is_picture), 1)


def _xml_rows(path: Path, text: str) -> Iterator[Row]:
    try:
        return enumerate(rows_of_xml(text), 1)
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    """Every column but pictures and embeddings."""
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            labels = labels_of(schema)
            columns = text_columns(schema, labels, without=image_columns(schema, paths=False))
            rows = file.read(columns=columns).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no whole parquet file ({error}). Copy or download it again.") from error
    for number, row in enumerate(rows):
        for name in labels.keys() & row.keys():
            row[name] = label_text(labels[name], row[name])
        yield number, _paths_out(row)


def _paths_out(row: dict[str, Any]) -> dict[str, Any]:
    """A picture given by its path alone stands for that path."""
    return {
        name: value["path"] if isinstance(value, dict) and "path" in value else value for name, value in row.items()
    }


# ---------------------------------------------------------------------- the JSON that describes one picture


def read_json(text: str) -> dict[str, Any]:
    """The object in a JSON file; a text or a list of texts is `captions`. ValueError where it cannot be read."""
    try:
        row = read_documents(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its .json cannot be read ({error})") from None
    if isinstance(row, str) or (isinstance(row, list) and all(map(_is_caption, row))):
        return {"captions": row}
    if isinstance(row, list) and row and all(isinstance(item, dict) and caption_columns(item).ready for item in row):
        return {"captions": [text for item in row for text in ready_captions(item)]}
    if isinstance(row, list) and len(row) == 1:  # of exiftool
        row = row[0]
    if isinstance(row, dict) and is_manifest(row):
        return next(rows_of_manifest(row), {})
    return plain_row(of_labelme(_unwrapped(row))) if isinstance(row, dict) else {}


def _is_caption(item: Any) -> bool:
    """A text, or one behind what it tells of: ["dog", "a black dog"]."""
    return isinstance(item, str) or (isinstance(item, list) and len(item) == 2 and strings([item]) == item[1:])


def _unwrapped(row: dict[str, Any]) -> dict[str, Any]:
    """What a museum's interface wraps: Rijksmuseum's {"artObject": {...}}, Chicago's {"data": {...}, "info": {...}}."""
    name = next((name for name in _WRAPPERS if isinstance(row.get(name), dict)), next(iter(row), ""))
    lone = len(row) == 1 and not is_caption_column(name) and not names_scored(row[name])
    envelope = name in _WRAPPERS and not any(caption_columns(row)[:2])
    return row[name] if isinstance(row.get(name), dict) and (lone or envelope) else row
