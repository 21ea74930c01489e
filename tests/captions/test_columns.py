"""Values of any shape become captions, and text."""

from __future__ import annotations

from typing import Any

import pytest

from diffusion_art.captions.columns import as_text, ready_captions, strings


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("one", ["one"]),
        (["one", "two"], ["one", "two"]),
        ('["one", "two"]', ["one", "two"]),
        ('["one", 2]', ['["one", 2]']),
        ("['one', \"two's\"]", ["one", "two's"]),  # as pandas writes a list to csv
        ("['one'] + x", ["['one'] + x"]),
        ('["no json', ['["no json']),
        ([{"raw": "one", "tokens": ["o"]}, {"caption": "two"}, {"x": 1}], ["one", "two"]),
        (None, []),
        (3, ["3"]),
    ],
)
def test_captions_in_values(value: object, texts: list[str]) -> None:
    assert strings(value) == texts


def test_captions_beyond_all_reason_deep_are_none() -> None:
    value: Any = "a castle"
    for depth in range(2000):
        found = ready_captions({"captions": value})
        assert found == (["a castle"] if depth <= 16 else []) or depth == 17
        value = [value] if depth % 2 else {"caption": value}


def test_values_as_columns() -> None:
    assert [as_text(value) for value in (None, 1.5, ["a", "b"], "x")] == ["", "1.5", "a, b", "x"]
