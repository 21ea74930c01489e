"""Text with separators (csv, tsv) as rows, as people and programs write it.

told     `sep=;`, quotation marks by doubling, by `\\"` or single ones, Excel's `="a"`, \\N for nothing
found    the separator, whether there is a header, and what stands above it
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from diffusion_art.captions.columns import ART_COLUMNS, caption_columns
from diffusion_art.errors import UserError
from diffusion_art.sources.paths.listing import suffix_of

SHORT_ROWS = "rows with fewer fields than the header"
UNCLOSED = "rows whose quotation mark is not closed, cut at the next row"
LONG_ROWS = "rows with more fields than the header, joined to the last column"
SEPARATORS = ("\t", "|", ";", ",")
Row = tuple[int, dict[str, Any]]

_SNIFFED_ROWS = 20
_INDEX = "index"  # the first column, which pandas writes without a name
_TOLD_EXCEL = re.compile(r"sep=(.)\r?\n")  # the first line of files that are written for it
ABOVE = "lines above the header of a table, passed by"
_TITLE_LINES = 10
_FIELDS = re.compile("[\t|;,]")
_SINGLE_QUOTES = re.compile(r"'[^'\n]*'(?:[,;\t|] ?'[^'\n]*')+\s*$", re.MULTILINE)
_EXCEL_TEXT = re.compile(
    r'(?:^|(?<=[,;\t|]))="([^"\n]*)"(?=[,;\t|]|\r?$)', re.MULTILINE
)  # keeps Excel from reading a number
_NOTHING = "\\N"  # of MySQL and PostgreSQL


def delimited_rows(
    path: Path, text: str, notes: Counter[str], *, is_picture: Callable[[str], bool], delimiter: str | None
) -> Iterator[Row]:
    """The rows of a text; what was odd about them is added to `notes`.

    Where the first row names a picture (`is_picture`) there is no header: its columns are `file_name`, `column_2`, ...
    and `caption` for the last of several words, or for the last, or `label` where that is a number, of a style in
    `style_train.csv`.
    """
    told = _TOLD_EXCEL.match(text)
    text = text[told.end() :] if told else text
    above, text = _without_title(text, is_picture)
    notes[ABOVE] += above
    text = _EXCEL_TEXT.sub(r'"\1"', text) if '="' in text else text
    style: dict[str, Any] = {"quotechar": "'"} if _SINGLE_QUOTES.match(text) else {}
    mark = delimiter or (told[1] if told else _separator(path, text, is_picture, style))
    text = _with_doubled_quotes(text, mark)
    style |= {"delimiter": mark, "skipinitialspace": _opens_late(text, mark), "quoting": _quoting(text, mark)}
    reader = csv.reader(io.StringIO(text, newline=""), **style)
    before = bool(told) + above
    header: list[str] = []
    try:
        for fields in _unswallowed(reader, style, is_picture, notes):
            if not any(field.strip() for field in fields):
                continue
            if not header and not any(is_picture(field) for field in fields):
                header = [field.strip() for field in fields]
                header[:1] = header[:1] if header[0] or len(header) == 1 else [_INDEX]
                continue
            header = header or _made_up_header(path, _fields_of_all(text, style, fields, is_picture), is_picture)
            yield reader.line_num + before, _row(header, fields, mark, notes)
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num + before} is not CSV ({error}). Correct the line.") from None


def _without_title(text: str, is_picture: Callable[[str], bool]) -> tuple[int, str]:
    """How many lines stand above the table, as a title or a comment, and the text below them."""
    lines = text[:65536].splitlines(keepends=True)
    for number, (line, following) in enumerate(pairwise(lines)):
        comment = line.startswith("# ") and not any(map(is_picture, _FIELDS.split(following)))
        title = not _FIELDS.search(line) and _FIELDS.search(following) and not is_picture(line.strip())
        title = title and not _is_lone_column(line, following)
        if number == _TITLE_LINES or not (comment or title):
            return number, text[sum(map(len, lines[:number])) :]
    return 0, text


def _is_lone_column(line: str, following: str) -> bool:
    """Whether a line is the header of captions alone, whose commas the next line has."""
    return bool(caption_columns([line.strip()]).ready) and not caption_columns(_FIELDS.split(following.strip())).ready


def _with_doubled_quotes(text: str, mark: str) -> str:
    """Quotation marks within a field as csv has them, where they were written as `\\"` (by MySQL or Spark)."""
    if '\\"' not in text:
        return text
    doubled = text.replace('\\"', '""')
    counts = [Counter(map(len, _first_rows(one, {"delimiter": mark}))) for one in (text, doubled)]
    width = len(next(iter(_first_rows(text, {"delimiter": mark})), []))
    return doubled if counts[1][width] >= counts[0][width] else text


def _opens_late(text: str, mark: str) -> bool:
    """Whether fields open with a space before their quotation mark: rows read so are as long as the first."""
    lines = text[:4096].splitlines()[:_SNIFFED_ROWS]
    if 2 * sum(f'{mark} "' in line for line in lines[1:]) <= len(lines[1:]):
        return False
    rows = _first_rows("\n".join(lines), {"delimiter": mark, "skipinitialspace": True})
    return 2 * sum(len(row) == len(rows[0]) for row in rows[1:]) > len(rows[1:]) if rows else False


def _unswallowed(
    rows: Iterator[list[str]], style: dict[str, Any], is_picture: Callable[[str], bool], notes: Counter[str]
) -> Iterator[list[str]]:
    """The rows, also those that became part of a text whose quotation mark nobody closed: they name pictures."""
    mark, pending = style["delimiter"], [rows]
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
        pending.append(csv.reader(lines[start:], **style))


def _row(header: list[str], fields: list[str], mark: str, notes: Counter[str]) -> dict[str, Any]:
    missing = len(header) - len(fields)
    notes[SHORT_ROWS] += missing > 0
    notes[LONG_ROWS] += missing < 0
    if missing < 0:  # a separator in the last column that nobody quoted
        fields = [*fields[: len(header) - 1], mark.join(fields[len(header) - 1 :])]
    return {name: "" if value == _NOTHING else value for name, value in zip(header, fields) if name}


def _fields_of_all(text: str, style: dict[str, Any], first: list[str], is_picture: Callable[[str], bool]) -> list[str]:
    """The first fields as most rows have them: where rows differ, a caption has separators that nobody quoted."""
    counts = Counter(len(row) for row in _first_rows(text, style) if len(row) > 1)
    least = min(counts, default=len(first))
    even = counts[len(first)] >= 0.8 * counts.total()
    return first if even or not any(map(is_picture, first[:least])) else first[:least]


def _made_up_header(path: Path, fields: list[str], is_picture: Callable[[str], bool]) -> list[str]:
    place = next(i for i, field in enumerate(fields) if is_picture(field))
    names = [f"column_{number}" for number in range(1, len(fields) + 1)]
    if len(fields) > 1:
        last = len(fields) - 1 if place != len(fields) - 1 else 0
        worded = [at for at, field in enumerate(fields) if at != place and " " in field.strip()]
        last = worded[-1] if worded else last  # behind a caption may stand its language, or an address
        about = path.stem.lower().partition("_")[0]  # `style_train.csv` of ArtGAN
        number = about if about in ART_COLUMNS else "label"
        names[last] = number if fields[last].strip().isdigit() else "caption"
    names[place] = "file_name"
    return names


def _separator(path: Path, text: str, is_picture: Callable[[str], bool], style: dict[str, Any]) -> str:
    """A tab for `.tsv`. Else the mark that cuts the shortest name of a picture out of the first row; without such a
    name the one that cuts the first rows into most fields, equally many in nearly each.
    """
    if suffix_of(path.name) == ".tsv" and "\t" in text.lstrip("\r\n").partition("\n")[0]:
        return "\t"
    tried = {mark: _first_rows(text, {**style, "delimiter": mark}) for mark in SEPARATORS}
    scores = {mark: score for mark, rows in tried.items() if (score := _evenness(rows)) > 0}
    names = {mark: [field for field in tried[mark][0] if is_picture(field)] for mark in scores}
    shortest = {mark: min(map(len, found)) for mark, found in names.items() if found}
    return max(scores, key=lambda mark: (-shortest.get(mark, len(text)), scores[mark]), default=",")


def _first_rows(text: str, style: dict[str, Any]) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text[:65536], newline=""), **style)
    try:
        return [row for row in islice(reader, _SNIFFED_ROWS) if row]
    except csv.Error:
        return []


def _evenness(rows: list[list[str]]) -> float:
    """How many marks the first row has, less where others have another number."""
    counts = [len(row) for row in rows]
    alike = sum(count == counts[0] for count in counts) if counts else 0
    return (counts[0] - 1) * (1 if alike >= 0.8 * len(counts) else 0.3) if counts else 0


def _quoting(text: str, mark: str) -> int:
    """None where a stray quotation mark would swallow rows: files cut by tabs or bars seldom mean them as quotes."""
    if mark == ",":
        return csv.QUOTE_MINIMAL
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
        swallowed = any("\n" in field and mark in field for row in rows for field in row)
    except csv.Error:
        swallowed = True
    return csv.QUOTE_NONE if swallowed else csv.QUOTE_MINIMAL
