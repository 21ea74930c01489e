"""The names behind numbers of classes: in the features of a parquet file of the hub, and in a list that data sets keep
beside: `classes.txt`, `style_class.txt` ...

tench                    a name a line, from 0; or all in one line, with commas
0 Abstract_Expressionism a number and a name a line, or a name and its number (`/a/abbey 0`, Places)
["tench", ...]           JSON: a list, {"0": "tench"} or {"tench": 0}
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from diffusion_art.captions.columns import CLASS_COLUMNS, as_text, plain_name
from diffusion_art.sources.paths.listing import JSON_SUFFIXES, Listing, stem_of, suffix_of
from diffusion_art.sources.paths.names import title_words
from diffusion_art.sources.tables.json_shapes import read_documents
from diffusion_art.sources.tables.texts import MAX_TEXT_BYTES, read_text

_LIST = re.compile(r"(?:(?P<column>[a-z]+)_)?(?:class(?:es|names|_names)?|label(?:s|names|_names)|categories)")
_MAP = re.compile(
    r"(?:label|class|id|idx)s?_?(?:num_)?(?:map(?:ping)?|to_\w+|2\w+|ind(?:ex|ices))"
)  # as programs call it
_PICTURE = re.compile(r"\.(?:jpe?g|png|webp|gif|tiff?|bmp|avif)\b", re.IGNORECASE)
_NUMBERED = re.compile(r"(\d+)[\s:,]+(.*\S.*)")
_BEHIND = re.compile(r"(?:/\w/)?(.*\S)[\s:,]+(\d+)")
_GENERAL = ("label", "class", "classname", "category")  # what a list without a word before it is about

ClassNames = dict[str, dict[str, str]]  # by column {number: name}


def class_lists(listing: Listing) -> dict[str, ClassNames]:
    """By file what the lists in a collection tell that are called so, those farther up first."""
    found: dict[str, ClassNames] = {}
    for file in sorted(listing.having({".txt", *JSON_SUFFIXES}), key=lambda file: file.count("/")):
        called = posixpath.basename(stem_of(file)).lower()
        match = _LIST.fullmatch(called)
        if (match or _MAP.fullmatch(called)) and (names := _names_in(listing.root / file)):
            column = match["column"] if match else ""
            found[file] = dict.fromkeys([column] if column in CLASS_COLUMNS else _GENERAL, names)
    return found


def together(lists: Iterable[ClassNames]) -> ClassNames:
    """What several lists tell; of two about the same column the first counts."""
    found: ClassNames = {}
    for names in lists:
        found = {**names, **found}
    return found


def class_names_in(listing: Listing) -> ClassNames:
    """What all lists of a folder tell."""
    return together(class_lists(listing).values())


def with_names(columns: dict[str, str], names: ClassNames) -> dict[str, str]:
    """The columns with names in place of their numbers, as far as these are known."""
    if not names:
        return columns
    return {column: names.get(plain_name(column), {}).get(text, text) for column, text in columns.items()}


def _names_in(path: Path) -> dict[str, str]:
    """{} of a file that lists something else, such as pictures."""
    with suppress(OSError, ValueError, RecursionError):
        if path.stat().st_size <= MAX_TEXT_BYTES:
            text = read_text(path).text
            names = _of_json(read_documents(text)) if suffix_of(path.name) in JSON_SUFFIXES else _of_lines(text)
            return {} if any(map(_PICTURE.search, names.values())) else names
    return {}


def _of_lines(text: str) -> dict[str, str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [name.strip() for name in lines[0].split(",")] if len(lines) == 1 else lines
    names = {match[1]: match[2] for line in lines if (match := _NUMBERED.fullmatch(line))}
    behind = {match[2]: match[1].replace("/", " ") for line in lines if (match := _BEHIND.fullmatch(line))}
    if len(names) < len(lines):  # behind the name only what counts them: no year, as of a car
        counted = len(behind) == len(lines) and max(map(int, behind)) <= len(lines)
        names = behind if counted else {str(number): line for number, line in enumerate(lines)}
    return {number: name.replace("_", " ") for number, name in names.items()}


def _of_json(content: Any) -> dict[str, str]:
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, Mapping):
        return {}
    pairs = [(str(key), value) for key, value in content.items()]
    if all(isinstance(value, int) for _, value in pairs):
        pairs = [(str(number), name) for name, number in pairs]
    return {
        number: name.replace("_", " ")
        for number, name in pairs
        if number.isdigit() and isinstance(name, str) and name.strip()
    }


# ---------------------------------------------------------------------- in the features of a parquet file

Labels = dict[str, list[str]]  # names of the classes of a column that holds their numbers

_SLUG = re.compile(r"[a-z0-9.'-]+")


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
