"""The JSON that describes one picture, as one row."""

from __future__ import annotations

from typing import Any

from diffusion_art.captions.columns import caption_columns, is_caption_column
from diffusion_art.captions.values import ready_captions, strings
from diffusion_art.sources.programs.annotators import of_labelme
from diffusion_art.sources.programs.iiif import is_manifest, rows_of_manifest
from diffusion_art.sources.tables.described import names_scored
from diffusion_art.sources.tables.json_shapes import plain_row, read_documents

_WRAPPERS = ("data", "artObject", "object", "record", "artwork", "item", "meta", "metadata")


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
