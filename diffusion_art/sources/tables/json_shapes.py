"""The shapes in which JSON files describe pictures, as one row a picture or caption.

[{"file_name": "a.jpg", ...}, ...]                      records; also under one key: {"images": [...]}
{"a.jpg": "a cat", "b.jpg": {"caption": ...}}           by file; kohya's metadata is like this
{"images": [...], "annotations": [...]}                 COCO: captions, or categories, joined by image_id
{"images": [{"filename", "sentences": [{"raw"}]}]}      Karpathy's splits
{"train": [...], "test": [...]}                         records, names or files of each split
{"file": {"0": "a.jpg", ...}, "text": {"0": ...}}       columns, as pandas writes them; also as lists
{"columns": ["file", "text"], "data": [["a.jpg", ...]]} as pandas splits them
[["a.jpg", "a cat"], ...]                               pairs
{"response": {"items": [...]}}                          what interfaces wrap
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from diffusion_art.captions.columns import (
    CaptionColumns,
    caption_columns,
    is_caption_column,
    names_scored,
    ready_captions,
)
from diffusion_art.sources.paths.splits import split_of_folder
from diffusion_art.sources.programs.annotators import OF_TOOLS, rows_of_classes, rows_of_via
from diffusion_art.sources.programs.exports import OF_EXPORTS, posts_in
from diffusion_art.sources.programs.museums import is_manifest, of_museum, rows_of_manifest

REJECTED = "captions that their data set marks as rejected, left out"
KEY_COLUMN = "file_name"  # takes the key of a file that lists pictures by name

_LAST_COMMA = re.compile(r",(\s*[\]}])")
# records in a row that have its captions, and those whose texts are about something else
_OWN = re.compile(r"annotations?|data|meta(?:data)?|images?|object|record|item|result")
_ASIDE = re.compile(
    r".*(?:licen[cs]e|rights?|credits?|user|owner|author|uploader|tags?|keywords|mentions|ocr|exif|album|museum|exhibition)"
)
_WORD = re.compile(
    r"[^\s\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]*"
)  # Chinese, Japanese and Thai have no spaces between words
_ENVELOPES = ("query", "photos", "response", "result", "results", "data", "hits", "_embedded")
_REJECTED = ("is_rejected", "rejected", "is_precanned")
_TRUE = ("true", "1", "yes")


def read_documents(text: str) -> Any:
    """What a JSON file holds: one value, or the list of several that stand behind one another. A comma before a closing
    bracket is forgiven. ValueError where it cannot be read.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        reader, found = json.JSONDecoder(), []
        text = _LAST_COMMA.sub(r"\1", text).strip().lstrip("\ufeff")
        while text:
            try:
                value, end = reader.raw_decode(text)
            except ValueError:
                raise error from None
            found.append(value)
            text = text[end:].lstrip(" \r\n\t,")
        return found[0] if len(found) == 1 else found


def rows_of(
    content: Any, notes: Counter[str], is_picture: Callable[[str], bool] = lambda _: False
) -> Iterator[dict[str, Any]]:
    """The rows in a JSON file's content; none where it describes no pictures. `notes` counts rejected captions."""
    yield from map(plain_row, _rows_of(content, notes, is_picture))


def plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row as tables have it, of what programs and museums write."""
    for shape in (*OF_TOOLS, of_museum, *OF_EXPORTS, _lifted):
        row = shape(row)
    return row


def _rows_of(content: Any, notes: Counter[str], is_picture: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    if isinstance(content, list):
        yield from (one for row in content if isinstance(row, dict) for one in posts_in(row))
        pairs = [row for row in content if _is_pair(row) and is_picture(row[0])]
        yield from ({KEY_COLUMN: name, "caption": text} for name, text in pairs)
    elif not isinstance(content, dict):
        return
    elif inner := next((content[name] for name in _ENVELOPES if _holds_records(content.get(name))), None):
        yield from _rows_of(inner.get("pages", inner), notes, is_picture)
    elif is_manifest(content):
        yield from rows_of_manifest(content)
    elif found := [*rows_of_via(content), *rows_of_classes(content)]:
        yield from found
    elif _is_coco(content):
        yield from _coco_rows(content, notes)
    elif content and all(map(split_of_folder, content)):
        yield from ({**row, "split": split} for split, part in content.items() for row in _part_rows(part))
    elif _is_record(content, is_picture):
        yield content
    elif lists := [value for value in content.values() if _are_records(value)]:
        told = lists if len(lists) == 1 else _telling(lists)
        yield from (_with_folder(one) for rows in told for row in rows for one in posts_in(row))
    elif _are_columns(content):
        yield from ({name: values[key] for name, values in content.items()} for key in next(iter(content.values())))
    elif isinstance(names := content.get("columns"), list) and isinstance(rows := content.get("data"), list):
        yield from (dict(zip(names, row)) for row in rows if isinstance(row, list) and len(row) == len(names))
    elif _are_lists(content, is_picture):
        yield from (dict(zip(content, cells)) for cells in zip(*content.values()))
    else:
        yield from _by_file(content)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)


def _holds_records(value: Any) -> bool:
    """Whether it is what an interface wraps round the records that it found."""
    return isinstance(value, dict) and any(
        _are_records(inner) or (name == "pages" and isinstance(inner, dict)) for name, inner in value.items()
    )


def _telling(lists: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Those with captions, or else those about paintings."""
    first = [(rows, plain_row(rows[0])) for rows in lists]
    captioned = [rows for rows, row in first if any(map(is_caption_column, row))]
    return captioned or [rows for rows, row in first if caption_columns(row).art]


def _is_record(content: dict[str, Any], is_picture: Callable[[str], bool]) -> bool:
    """Whether an object is about one picture, which a value in it names: not where records in it name theirs."""
    inner = (row for value in content.values() if _are_records(value) for row in value[:10])
    named = any(isinstance(value, str) and is_picture(value) for value in content.values())
    return (
        named
        and not any(map(is_picture, content))
        and not any(isinstance(value, str) and is_picture(value) for row in inner for value in row.values())
    )


def _lifted(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the captions of the one record or list of records in it that has some, where it has none itself, or
    with the artist and title in the one record that has these. A row that tells of its picture otherwise (title, label)
    keeps to that, but for records that are plainly its own.
    """
    known = caption_columns(row)
    if known.ready or known.telling:
        return row
    nested = {name: value for name, value in row.items() if tells_of_picture(name, known)}
    within = {name: [value] if isinstance(value, dict) else value for name, value in nested.items()}
    records = {name: items for name, items in within.items() if isinstance(items, list) and items and _all_tell(items)}
    if not records and not known.art:
        painted = [
            value for value in nested.values() if isinstance(value, dict) and len(caption_columns(value).art) > 1
        ]
        return {**painted[0], **row} if len(painted) == 1 else row
    if len(records) != 1:
        return row
    (items,) = records.values()
    if len(items) == 1 and isinstance(next(iter(row[name] for name in records)), dict):
        return {**items[0], **row}
    return {**row, "captions": [text for item in items for text in ready_captions(item)]}


def tells_of_picture(name: str, known: CaptionColumns) -> bool:
    """Whether records in column `name` may be about the picture, where the other columns are `known`."""
    plain = name.lower()
    return bool(_OWN.fullmatch(plain)) if known.art or known.last else not _ASIDE.fullmatch(plain)


def _all_tell(items: list[Any]) -> bool:
    return all(isinstance(item, dict) and caption_columns(item).ready for item in items)


def _part_rows(part: Any) -> Iterator[dict[str, Any]]:
    """Of one split: records, or names alone, or by file."""
    if isinstance(part, list):
        yield from (row if isinstance(row, dict) else {KEY_COLUMN: row} for row in part)
    elif isinstance(part, dict):
        yield from _by_file(part)


def _are_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value[:10])


def _are_columns(content: dict[str, Any]) -> bool:
    """Whether each value holds one cell for each of the same numbers."""
    first = next(iter(content.values()), None)
    if len(content) < 2 or not isinstance(first, dict) or not all(map(str.isdigit, first)):
        return False
    return bool(first) and all(isinstance(cells, dict) and cells.keys() == first.keys() for cells in content.values())


def _are_lists(content: dict[str, Any], is_picture: Callable[[str], bool]) -> bool:
    """Whether each value is a list of as many cells, and one of them names pictures."""
    columns = list(content.values())
    if len(columns) < 2 or not all(isinstance(cells, list) and len(cells) == len(columns[0]) for cells in columns):
        return False
    return any(isinstance(cell, str) and is_picture(cell) for cells in columns for cell in cells[:10])


def _by_file(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, value in content.items():
        if tags := names_scored(value):
            yield {KEY_COLUMN: name, "tags": tags}
        elif isinstance(value, dict):
            yield {**value, KEY_COLUMN: name}
        elif isinstance(value, list) and all(isinstance(item, str) and _WORD.fullmatch(item) for item in value):
            yield {KEY_COLUMN: name, "tags": value}
        elif isinstance(value, (str, list)):
            yield {KEY_COLUMN: name, "caption": value}


def _is_coco(content: dict[str, Any]) -> bool:
    annotations: Any = content.get("annotations")
    return _are_records(content.get("images")) and _are_records(annotations) and "image_id" in annotations[0]


def is_rejected(row: Mapping[str, Any]) -> bool:
    """Whether a caption is none: VizWiz marks those of pictures that nobody could make out."""
    return any(str(row.get(name, "")).strip().lower() in _TRUE for name in _REJECTED)


def _coco_rows(content: dict[str, Any], notes: Counter[str]) -> Iterator[dict[str, Any]]:
    """One row an image: its own columns, its captions, and the names of its categories, each once."""
    names = {item.get("id"): str(item.get("name", "")) for item in content.get("categories") or ()}
    captions: dict[str, list[str]] = defaultdict(list)
    categories: dict[str, dict[str, None]] = defaultdict(dict)
    for item in content["annotations"]:
        if is_rejected(item):
            notes[REJECTED] += 1
        elif isinstance(caption := item.get("caption"), str):
            captions[str(item.get("image_id"))].append(caption)
        if name := names.get(item.get("category_id")):
            categories[str(item.get("image_id"))][name] = None
    for image in content["images"]:
        row = {name: value for name, value in image.items() if name not in ("id", "license")}
        row["caption"] = captions.get(str(image.get("id")), [])
        if names:
            row["categories"] = list(categories.get(str(image.get("id")), ()))
        yield row


def _with_folder(row: dict[str, Any]) -> dict[str, Any]:
    """Karpathy keeps a file's folder apart (`filepath`), and word lists beside each sentence."""
    folder, name = row.get("filepath"), row.get("filename")
    if isinstance(folder, str) and isinstance(name, str):
        return {**row, "filename": f"{folder}/{name}"}
    return row
