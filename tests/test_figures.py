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


PROSE = ("README.md", "docs/results.md", "docs/choosing.md", "docs/accelerations.md", "docs/serve.md")
CITED = re.compile(r"`python benchmarks/(\w+)\.py([^`]*)`|\(`(\w+)\.py`\)")
NO_FIGURE = re.compile(r"not (recorded|measured)")
MEASURED = re.compile(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)(?= (?:times|%))")


def sentences(page: str) -> Iterator[str]:
    """Sentences and rows of tables, without code blocks."""
    prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    yield from re.split(r"\n\n|\n(?=\* |- |\|)|(?<=\.)\s+(?=[A-Z`*])", prose)


def results_of(name: str, words: str) -> str:
    """The file that `python benchmarks/NAME.py WORDS` writes its rows into."""
    options = dict(word.split("=", 1) for word in words.split())
    suffix = options.get("name", "") if name == "quality" else ""
    suffix = suffix or ("64px" if name == "quality" and options.get("size") == "64" else "")
    return "_".join(filter(None, (name, suffix)))


def rounded(figure: float, shown: str) -> bool:
    """Whether the figure, or its percentage, is `shown` to the digits that are shown."""
    digits = len(shown.partition(".")[2]) or -len(re.findall(r"0*$", shown.replace(",", ""))[0])
    return any(abs(scale * figure - float(shown.replace(",", ""))) <= 0.51 * 10**-digits for scale in (1, 100))


@pytest.mark.parametrize("page", PROSE)
def test_a_benchmark_that_prose_names_is_there_with_its_figures(page: str):
    for sentence in sentences(page):
        cited = [(name or short, words) for name, words, short in CITED.findall(sentence)]
        figures: list[float] = []
        for name, words in cited:
            assert (ROOT / "benchmarks" / f"{name}.py").is_file(), sentence
            file = ROOT / "benchmarks/results" / f"{results_of(name, words)}.json"
            assert file.is_file() or NO_FIGURE.search(sentence), f"{page}: {file.name} is missing for: {sentence}"
            rows = json.loads(file.read_text()) if file.is_file() else []
            figures += [row[side] for row in rows for side in ("ours", "peer", "ratio") if side in row]
        shown = MEASURED.findall(sentence) if cited else []
        assert [number for number in shown if not any(rounded(figure, number) for figure in figures)] == [], sentence
