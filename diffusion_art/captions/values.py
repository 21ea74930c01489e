"""Captions in the raw values of a row: one text, several, written-out lists, records, conversations."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from diffusion_art.captions.columns import caption_columns, is_numbered

_ASSISTANTS = ("gpt", "assistant", "model")
_TEXT_FIELDS = ("raw", "caption", "text", "sentence", "en", "english")  # of a record in place of a caption
_MAX_LIST_CHARACTERS = 2**16


def ready_captions(row: Mapping[str, Any]) -> list[str]:
    """Every caption in a row of raw values: of its best filled column of captions, or of all numbered ones."""
    known = caption_columns(row)
    for name in (*known.ready, *known.telling):
        if found := unique(strings(row[name])):
            if is_numbered(name):
                return unique([text for other in known.ready if is_numbered(other) for text in strings(row[other])])
            return found
    return []


def unique(texts: list[str]) -> list[str]:
    """Texts without white space around them, each once; empty ones go."""
    return list(dict.fromkeys(stripped for text in texts if (stripped := text.strip())))


def strings(value: Any, levels: int = 16) -> list[str]:
    """Every caption in a value of a caption column; a list may also be written out, and of a conversation the first
    answer counts. What lies more than `levels` deep is left out.
    """
    if levels < 0:
        return []
    if isinstance(value, str):
        return listed(value) or [value]
    if isinstance(value, list) and value and all(map(_is_turn, value)):
        return _first_answer(value, levels - 1)
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):  # a map of parquet
        return strings(dict(value), levels - 1)
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in strings(_without_kind(item), levels - 1)]
    if isinstance(value, dict):
        named = next((strings(value[name], levels - 1) for name in _TEXT_FIELDS if value.get(name)), [])
        return named or [text for text in value.values() if isinstance(text, str) and " " in text.strip()]
    return [] if value is None else [str(value)]


def _without_kind(item: Any) -> Any:
    """Of a pair such as ["alt", "a castle"] the text."""
    pair = isinstance(item, list) and len(item) == 2 and all(isinstance(part, str) for part in item)
    return item[1] if pair and item[0].isalpha() and " " in item[1].strip() and len(item[0]) < 16 else item


def _is_turn(item: Any) -> bool:
    """Whether it is what someone says in a conversation, as LLaVA or OpenAI write it."""
    return isinstance(item, dict) and ({"from", "value"} <= item.keys() or {"role", "content"} <= item.keys())


def _first_answer(turns: list[dict[str, Any]], levels: int) -> list[str]:
    """What the assistant says first, without the mark of the picture."""
    said = [turn for turn in turns if str(turn.get("from", turn.get("role"))).lower() in _ASSISTANTS]
    texts = (" ".join(strings(turn.get("value", turn.get("content")), levels)) for turn in said)
    return list(filter(None, (text.replace("<image>", " ").strip() for text in texts)))[:1]


def listed(text: str) -> list[str]:
    """The texts of a list written out as JSON or by Python: '["a dog", "a black dog"]', "['a dog']"; else []."""
    found = _written_list(text) if text.startswith(('["', "['")) else []
    return found if all(isinstance(item, str) for item in found) else []


def records_in(text: str) -> list[dict[str, Any]]:
    """The same of records: '[{"name": "Monet"}]'."""
    found = _written_list(text) if text.startswith("[{") else []
    return found if all(isinstance(item, dict) for item in found) else []


def _written_list(text: str) -> list[Any]:
    if len(text) > _MAX_LIST_CHARACTERS:
        return []
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list) else []
    return []
