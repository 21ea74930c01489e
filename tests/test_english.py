"""Turns of English that a reader with another first language stops at are not written: a short list, and no more.

Docstrings, comments and texts of the package, comments of `conf/`, and pages are searched; names in code are not.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

BANNED = {
    r"\b(is|are) none of\b": "is not one of",
    r"\b(is|are) no number\b": "is not a number",
    r"\bmend(s|ed|ing)?\b": "repair, put right, help",
    r"\bwho(m)?ever\b": "say who: the client, the caller",
    r"\bin company\b": "among others",
    r"\bfor the sake of\b": "because of, for",
    r"# that it may\b": "say what it does",
}
HUNG = re.compile(r": [^#\n]+# (of|that|whose|whom|for|by which|in which) ")  # a clause without a verb, on a key
FOLDERS = ("", "data", "docs", "examples", "findings", ".github")


def _in_code(path: Path) -> Iterator[tuple[int, str]]:
    """Comments, docstrings and texts of a module, without what is between the braces of an f-string."""
    text = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _found(texts: Iterator[tuple[int, str]]) -> Iterator[str]:
    for line, text in texts:
        for turn, better in BANNED.items():
            if (match := re.search(turn, " ".join(text.split()), re.IGNORECASE)) is not None:
                yield f"line {line}: {match[0]!r}; better: {better}"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    yield from enumerate(path.read_text().splitlines(), 1)


def test_the_package_is_in_plain_english():
    modules = [path for folder in ("diffusion_art", "hydra_plugins") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(modules) > 200
    assert [f"{path.relative_to(ROOT)}, {found}" for path in modules for found in _found(_in_code(path))] == []


def test_the_config_is_in_plain_english():
    files = sorted((ROOT / "conf").rglob("*.yaml"))
    hung = [f"{path.relative_to(ROOT)}: {line}" for path in files for _, line in _lines(path) if HUNG.search(line)]
    assert hung == []
    assert [f"{path.relative_to(ROOT)}, {found}" for path in files for found in _found(_lines(path))] == []


def test_the_pages_are_in_plain_english():
    pages = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))]
    assert [f"{path.relative_to(ROOT)}, {found}" for path in pages for found in _found(_lines(path))] == []


@pytest.mark.parametrize("turn", ["x is none of a, b", "Is it mended?", "Whoever asks", "alone and in company"])
def test_the_list_finds_what_it_bans(turn):
    assert len([*_found(iter([(1, turn)]))]) == 1


def test_a_clause_hung_on_a_key_is_found():
    assert HUNG.search("  max_body_bytes: 262144 # of a request")
    assert not HUNG.search("  max_body_bytes: 262144 # the largest request")
