"""Tables of metadata as rows: csv of any separator, JSON lines, a JSON file, parquet.

    for line, row in read_table(path, ...):  # row: {column: raw value}

`line` says where a row stands in its file. Text is decoded as `texts.decode` has it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from diffusion_art.errors import UserError
from diffusion_art.sources.json_shapes import rows_of
from diffusion_art.sources.listing import suffix_of
from diffusion_art.sources.parquet_columns import image_columns, label_text, labels_of, text_columns
from diffusion_art.sources.texts import CP1252_NOTE, decode, read_text

SHORT_ROWS = "rows with fewer fields than the header"
UNCLOSED = "rows whose quotation mark is not closed, cut at the next row"
LONG_ROWS = "rows with more fields than the header, joined to the last column"
Row = tuple[int, dict[str, Any]]

_SEPARATORS = ("\t", "|", ";", ",")
_LIST_OF_OBJECTS = re.compile(r"\s*\[\s*\{")
_SNIFFED_ROWS = 20
_INDEX = "index"  # the first column, which pandas writes without a name
_TOLD_EXCEL = re.compile(r"sep=(.)\r?\n")  # the first line of files that are written for it


def read_table(
    path: Path, notes: Counter[str], *, is_picture: Callable[[str], bool], delimiter: str | None = None
) -> Iterator[Row]:
    """The rows of `path`, by its suffix; what was odd about them is added to `notes`.

    A csv whose first row names a picture (`is_picture`) has no header: its columns are `file_name`, `column_2`, ...
    and `caption` for the last of several words, or for the last, or `label` where that is a number.

    Raises:
        UserError: the file is damaged; the message names the line.
    """
    kind = suffix_of(path.name)
    if kind == ".parquet":
        return _parquet_rows(path)
    try:
        text, guessed = read_text(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}).") from error
    notes[CP1252_NOTE] += guessed
    if kind in (".jsonl", ".ndjson") and not _LIST_OF_OBJECTS.match(text):
        return _json_lines(path, text)
    if kind in (".json", ".jsonl", ".ndjson"):
        return _json_rows(path, text, notes)
    return _csv_rows(path, text, notes, is_picture=is_picture, delimiter=delimiter)


def could_be_table(path: Path, is_picture: Callable[[str], bool]) -> bool:
    """Whether a `.txt` is a table: a field of one of its first two lines names a picture."""
    fields = {
        field.strip(' "')
        for line in first_lines(path)
        for mark in _SEPARATORS
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


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} line {number} is not JSON ({error}). Write one object a line.") from None
        if not isinstance(row, dict):
            raise UserError(f'{path} line {number} is not an object like {{"file_name": "a.jpg", ...}}.')
        yield number, row


def _json_rows(path: Path, text: str, notes: Counter[str]) -> Iterator[Row]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{") and "\n{" in text:  # lines, whatever the suffix says
            return _json_lines(path, text)
        raise UserError(f"{path} is not JSON ({error}). Write a list of objects.") from None
    return enumerate(rows_of(content, notes), 1)


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


def _csv_rows(
    path: Path, text: str, notes: Counter[str], *, is_picture: Callable[[str], bool], delimiter: str | None
) -> Iterator[Row]:
    told = _TOLD_EXCEL.match(text)
    text = text[told.end() :] if told else text
    mark = delimiter or (told[1] if told else _separator(path, text, is_picture))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, quoting=_quoting(text, mark))
    header: list[str] = []
    try:
        for fields in _unswallowed(reader, mark, is_picture, notes):
            if not any(field.strip() for field in fields):
                continue
            if not header and not any(is_picture(field) for field in fields):
                header = [field.strip() for field in fields]
                header[:1] = header[:1] if header[0] or len(header) == 1 else [_INDEX]
                continue
            header = header or _made_up_header(_fields_of_all(text, mark, fields, is_picture), is_picture)
            yield reader.line_num + bool(told), _row(header, fields, mark, notes)
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num + bool(told)} is not CSV ({error}). Correct the line.") from None


def _unswallowed(
    rows: Iterator[list[str]], mark: str, is_picture: Callable[[str], bool], notes: Counter[str]
) -> Iterator[list[str]]:
    """The rows, also those that became part of a text whose quotation mark nobody closed: they name pictures."""
    pending = [rows]
    while pending:
        if (fields := next(pending[-1], None)) is None:
            pending.pop()
            continue
        long = next((at for at, field in enumerate(fields) if "\n" in field), None)
        place = None if long is None else next((at for at in range(long) if is_picture(fields[at])), None)
        lines = [] if place is None else mark.join(fields[long:]).splitlines()
        starts = (at for at, line in enumerate(lines) if at and any(map(is_picture, line.split(mark)[place:][:1])))
        if (start := next(starts, None)) is None:
            yield fields
            continue
        notes[UNCLOSED] += 1
        yield [*fields[:long], "\n".join(lines[:start])]
        pending.append(csv.reader(lines[start:], delimiter=mark))


def _row(header: list[str], fields: list[str], mark: str, notes: Counter[str]) -> dict[str, Any]:
    missing = len(header) - len(fields)
    notes[SHORT_ROWS] += missing > 0
    notes[LONG_ROWS] += missing < 0
    if missing < 0:  # a separator in the last column that nobody quoted
        fields = [*fields[: len(header) - 1], mark.join(fields[len(header) - 1 :])]
    return {name: value for name, value in zip(header, fields) if name}


def _fields_of_all(text: str, mark: str, first: list[str], is_picture: Callable[[str], bool]) -> list[str]:
    """The first fields as most rows have them: where rows differ, a caption has separators that nobody quoted."""
    counts = Counter(len(row) for row in _first_rows(text, mark) if len(row) > 1)
    least = min(counts, default=len(first))
    even = counts[len(first)] >= 0.8 * counts.total()
    return first if even or not any(map(is_picture, first[:least])) else first[:least]


def _made_up_header(fields: list[str], is_picture: Callable[[str], bool]) -> list[str]:
    place = next(i for i, field in enumerate(fields) if is_picture(field))
    names = [f"column_{number}" for number in range(1, len(fields) + 1)]
    if len(fields) > 1:
        last = len(fields) - 1 if place != len(fields) - 1 else 0
        worded = [at for at, field in enumerate(fields) if at != place and " " in field.strip()]
        last = worded[-1] if worded else last  # behind a caption may stand its language, or an address
        names[last] = "label" if fields[last].strip().isdigit() else "caption"
    names[place] = "file_name"
    return names


def _separator(path: Path, text: str, is_picture: Callable[[str], bool]) -> str:
    """A tab for `.tsv`. Else the mark that cuts the shortest name of a picture out of the first row; without such a
    name the one that cuts the first rows into most fields, equally many in nearly each.
    """
    if suffix_of(path.name) == ".tsv" and "\t" in text.lstrip("\r\n").partition("\n")[0]:
        return "\t"
    tried = {mark: _first_rows(text, mark) for mark in _SEPARATORS}
    scores = {mark: score for mark, rows in tried.items() if (score := _evenness(rows)) > 0}
    names = {mark: [field for field in tried[mark][0] if is_picture(field)] for mark in scores}
    shortest = {mark: min(map(len, found)) for mark, found in names.items() if found}
    return max(scores, key=lambda mark: (-shortest.get(mark, len(text)), scores[mark]), default=",")


def _first_rows(text: str, mark: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text[:65536], newline=""), delimiter=mark)
    try:
        return [row for row in islice(reader, _SNIFFED_ROWS) if row]
    except csv.Error:
        return []


def _evenness(rows: list[list[str]]) -> float:
    """How many marks the first row has, less where others have another number."""
    counts = [len(row) for row in rows]
    alike = sum(count == counts[0] for count in counts) if counts else 0
    return (counts[0] - 1) * (1 if alike >= 0.8 * len(counts) else 0.3) if counts else 0


def _quoting(text: str, mark: str) -> Literal[0, 3]:
    """None where a stray quotation mark would swallow rows: files cut by tabs or bars seldom mean them as quotes."""
    if mark == ",":
        return csv.QUOTE_MINIMAL
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
        swallowed = any("\n" in field and mark in field for row in rows for field in row)
    except csv.Error:
        swallowed = True
    return csv.QUOTE_NONE if swallowed else csv.QUOTE_MINIMAL
