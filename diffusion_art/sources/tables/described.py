"""What tables and JSON files say of one picture: its columns as text, its captions, its split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusion_art.captions.columns import is_art_column, is_caption_column
from diffusion_art.captions.values import listed, ready_captions, records_in, strings
from diffusion_art.sources.paths.splits import split_in_row
from diffusion_art.sources.tables.texts import as_text

# of a person, a title, a tag; of Cleveland's makers, of Denmark's SMK and of Omeka S
_NAMES = ("name", "full_name", "username", "title", "label", "description", "period", "displayDate", "@value")


@dataclass(slots=True)
class Described:
    """What the tables say of one picture."""

    columns: dict[str, str] = field(default_factory=dict)
    captions: list[str] = field(default_factory=list)
    split: str | None = None  # by a column
    split_of_table: str | None = None  # by the name of a table, or of a list of names

    def add(self, row: dict[str, Any], column: str | None) -> None:
        """One more row about a picture: first come the columns, then only what they left empty and more captions."""
        row = {name: value for name, value in row.items() if name != column}
        for name, value in row.items():
            if not self.columns.get(name) and (text := text_of(name, value)) is not None:
                self.columns[name] = text
        for caption in ready_captions(row):
            if caption not in self.captions:
                self.captions.append(caption)
        self.split = split_in_row(row) or self.split


def without_captions(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row but for its captions."""
    return {name: value for name, value in row.items() if not is_caption_column(name)}


def text_of(name: str, value: Any) -> str | None:
    """A raw value as a column keeps it: of captions the first, of records with a `name` these; None for another record,
    which no caption can use.
    """
    if isinstance(value, str) and not value.startswith("["):
        return value
    if is_caption_column(name):
        return next(iter(strings(value)), "")
    if isinstance(value, str):
        return as_text(listed(value) or _names_in(records_in(value)) or value)
    records = [value] if isinstance(value, dict) and is_art_column(name) else value
    if names := names_scored(value) or (_names_in(records) if isinstance(records, list) and records else []):
        return as_text(names)
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)):
        return None
    return as_text(value)


def names_scored(value: Any) -> list[str]:
    """The names in what a tagger writes: {"castle": 0.9}, or [["castle", 0.9]]; [] of anything else."""
    pairs = list(value.items()) if isinstance(value, dict) else value if isinstance(value, list) else []
    scored = all(isinstance(pair, (list, tuple)) and len(pair) == 2 and _is_score(*pair) for pair in pairs)
    return [name for name, _ in pairs] if scored else []


def _is_score(name: Any, score: Any) -> bool:
    return isinstance(name, str) and isinstance(score, float) and 0 <= score <= 1


def _names_in(records: list[Any]) -> list[str]:
    """What records of people, titles or tags are called; [] where one has no name."""
    names = [next((item[key] for key in _NAMES if item.get(key)), None) for item in records if isinstance(item, dict)]
    return [str(name) for name in names] if len(names) == len(records) and all(map(_is_text, names)) else []


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, int))
