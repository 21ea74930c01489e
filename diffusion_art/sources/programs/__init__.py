"""What known programs, museums and their interfaces write, as plain rows."""

from __future__ import annotations

from typing import Any


def record(value: Any) -> dict[str, Any]:
    """The value where it is one; else {}."""
    return value if isinstance(value, dict) else {}


def records(value: Any) -> list[dict[str, Any]]:
    """Those in a list; [] of anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def as_list(value: Any) -> list[Any]:
    """A list as it is, one value as a list of it."""
    return value if isinstance(value, list) else [] if value is None else [value]
