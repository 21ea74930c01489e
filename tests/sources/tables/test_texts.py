"""`sources/tables/texts.py`: bytes of any encoding become text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_art.sources.tables.texts import alternatives, decode, overlaid

TEXT = "Édouard Manet’s “Olympia” – 1863 …"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_texts_of_every_usual_encoding(encoding: str) -> None:
    assert decode(TEXT.encode(encoding)) == (TEXT, encoding == "cp1252")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_known_by_its_zeros(encoding: str) -> None:
    assert decode("a castle, é".encode(encoding)) == ("a castle, é", False)


def test_only_the_lines_that_are_no_utf8_are_read_as_windows_1252() -> None:
    assert decode("日本\n".encode() + b"caf\xe9 \x81\n") == ("日本\ncafé \x81\n", True)


@given(st.binary(max_size=200))
def test_no_bytes_become_a_replacement_character(data: bytes) -> None:
    assert "\ufffd" not in decode(data).text or "\ufffd".encode() in data or b"\xff\xfd" in data or b"\xfd\xff" in data


def test_lines_are_alternatives() -> None:
    assert alternatives("one\r\n\n two \none\r") == ["one", "two"]


def test_a_number_of_a_class_takes_no_names_place() -> None:
    known = {"artist": "Claude Monet", "title": "Sunrise", "style": "", "label": "7"}
    numbers = {"artist": "22", "title": "1984", "style": "12", "label": "8"}
    assert overlaid(known, numbers) == {"artist": "Claude Monet", "title": "1984", "style": "12", "label": "8"}


def test_a_slug_takes_no_names_place() -> None:
    known = {"artist": "Claude Monet", "title": "Jean-Luc"}
    assert overlaid(known, {"artist": "claude-monet", "title": "jean-luc"}) == known
    assert overlaid(known, {"artist": "paul-klee"})["artist"] == "paul-klee"
