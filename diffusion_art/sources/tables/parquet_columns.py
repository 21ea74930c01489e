"""What the columns of a parquet file are for, by their types: pictures, text that a caption can use, or neither."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from diffusion_art.captions.columns import is_caption_column
from diffusion_art.sources.paths.names import others_are_made_from, title_words
from diffusion_art.sources.tables.texts import as_text

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "picture")  # preferred in this order
Labels = dict[str, list[str]]  # names of the classes of a column that holds their numbers

_LIKELY_IMAGE = re.compile("image|img|picture|photo|pixel|painting|jpe?g|png")
_LINK = re.compile(r"(.*[_-])?(url|urls|link|uri|href)")
_SLUG = re.compile(r"[a-z0-9.'-]+")


def image_columns(schema: pa.Schema, *, paths: bool = True) -> list[str]:
    """Columns of image bytes, the likeliest first, lists of them last; with `paths` also those with a struct of a path
    alone.
    """
    found = [field.name for field in schema if _holds_bytes(field.type) or (paths and _holds_path(field.type))]
    lists = [field.name for field in schema if is_list(field.type) and _holds_bytes(field.type.value_type)]
    lower = {name.lower(): name for name in reversed(found)}
    named = [lower[name] for name in IMAGE_COLUMNS if name in lower]
    return list(dict.fromkeys([*named, *_likeliest_first(found), *_likeliest_first(lists)]))


def _likeliest_first(columns: list[str]) -> list[str]:
    return sorted(
        columns,
        key=lambda name: (is_caption_column(name), not _LIKELY_IMAGE.search(name.lower()), others_are_made_from(name)),
    )


def other_images(schema: pa.Schema, chosen: str) -> list[str]:
    """Columns of images besides `chosen`, as far as their types or names leave no doubt."""
    found = (name for name in image_columns(schema) if name != chosen and not is_caption_column(name))
    return [
        name
        for name in found
        if pa.types.is_struct(item_type(schema.field(name).type)) or _LIKELY_IMAGE.search(name.lower())
    ]


def without_images(schema: pa.Schema, asked: str | None) -> str:
    """Why a file gives no pictures, and what helps."""
    what = f"{f'`{asked}` is' if asked else 'there is'} no column of image bytes among {schema.names}."
    if asked and (found := image_columns(schema)):
        return f"{what} Those with images: {', '.join(found)}."
    if asked is None and any(_LINK.fullmatch(name.lower()) for name in schema.names):
        return f"{what} Its pictures are links: download them with img2dataset, and give the folder that it writes."
    names = [asked] if asked in schema.names else [name for name in schema.names if _LIKELY_IMAGE.search(name.lower())]
    types = ", ".join(f"`{name}` is {str(schema.field(name).type)[:60]}" for name in names)
    return (
        f"{what} Images are bytes, or a struct of bytes and path{f'; {types}' if types else ''}. "
        "Where a column names picture files, use source=csv source.path=FILE."
    )


def text_columns(schema: pa.Schema, labels: Labels, *, without: list[str]) -> list[str]:
    """Columns worth a caption: text, numbers, dates, lists of text, classes; captions as records or bytes too."""
    wanted = (field for field in schema if field.name not in without)
    return [
        field.name
        for field in wanted
        if _is_text(field.type)
        or field.name in labels
        or _holds_path(field.type)
        or (is_caption_column(field.name) and (pa.types.is_nested(field.type) or _holds_bytes(field.type)))
    ]


def labels_of(schema: pa.Schema) -> Labels:
    """The names behind Hugging Face's `ClassLabel` columns, lists of them included."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: _class_names(feature) for name, feature in features.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: _readable(name, names) for name, names in found.items() if names}


def label_text(names: Sequence[str], value: Any) -> str:
    """Of one class number, or of a list of them; "" for an unknown one."""
    if isinstance(value, list):
        return as_text([text for item in value if (text := label_text(names, item))])
    if isinstance(value, int):
        return names[value] if 0 <= value < len(names) else ""
    return as_text(value)


def _class_names(feature: Any) -> list[str]:
    """Old files write a list of classes as a JSON list of one feature, newer ones as `Sequence` or `List`."""
    if isinstance(feature, list):
        return _class_names(feature[0]) if feature else []
    if not isinstance(feature, dict):
        return []
    if feature.get("_type") == "ClassLabel":
        return [str(name) for name in feature.get("names") or ()]
    return _class_names(feature.get("feature"))


def _readable(column: str, names: list[str]) -> list[str]:
    """`Abstract_Expressionism` with a space; artists written as `claude-monet` by their names."""
    plain = [name.replace("_", " ") for name in names]
    known = [name for name in plain if not name.lower().startswith("unknown")]
    slugs = column == "artist" and all(map(_SLUG.fullmatch, known)) and any("-" in name for name in known)
    return [title_words(name) if name in known else name for name in plain] if slugs else plain


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def item_type(kind: pa.DataType) -> pa.DataType:
    """Of a list that of its items, else the type itself."""
    return kind.value_type if is_list(kind) else kind


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _holds_path(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and kind.get_field_index("path") >= 0 and kind.get_field_index("bytes") < 0


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return not pa.types.is_nested(kind) and not _holds_bytes(kind)
