"""The figures in tables of results stand in files that benchmarks wrote: a number no file holds is in no such table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

TABLES = {  # page, heading above the table -> the columns that hold figures
    ("README.md", "Results"): ("minutes", "style / colours / held-out pairs"),
    ("docs/results.md", "Trainings"): ("time", "style", "both colours", "held-out pairs"),
    ("docs/choosing.md", "Sampler and number of steps"): ("style found, %",),
}


def rows(page: str, heading: str) -> Iterator[dict[str, str]]:
    """The rows of the first table below a heading, by its columns."""
    below = (ROOT / page).read_text().partition(f"\n## {heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert table is not None, (page, heading)
    head, _, *lines = table[0].splitlines()
    for line in lines:
        yield dict(zip(cells(head), cells(line), strict=True))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def held(commit: str | None) -> set[float]:
    """Every figure under benchmarks/results, of one commit or of all."""
    found = set()
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        for row in json.loads(path.read_text()):
            if commit is None or row["commit"].rstrip("+") == commit:
                found |= {row[side] for side in ("ours", "peer", "ratio") if side in row}
    return found


def stands(text: str, figures: set[float]) -> bool:
    """Whether a file holds the number, or the share that it is the percentage of."""
    digits = len(text.partition(".")[2])
    shown = float(text.replace(",", ""))
    return any(round(scale * figure, digits) == shown for figure in figures for scale in (1, 100))


@pytest.mark.parametrize(("page", "heading"), TABLES, ids=lambda value: str(value))
def test_each_figure_of_a_table_of_results_stands_in_a_file(page: str, heading: str):
    checked = 0
    for row in rows(page, heading):
        figures = held(row.get("commit") or None)
        for column in TABLES[page, heading]:
            for number in re.findall(r"\d[\d,]*(?:\.\d+)?", row[column]):
                assert stands(number, figures), f"{page}: {number} of {row} stands in no file of its commit"
                checked += 1
    assert checked >= 6


def test_a_number_that_no_file_holds_is_found():
    figures = held("cb63848")
    assert stands("98.4", figures)
    assert not stands("98.5", figures)
    assert not stands("98.4", held("no such commit"))
