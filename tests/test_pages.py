"""What the pages name is there: links, files, names in files, keys, targets of make, tables; README fits one page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

FOLDERS = ("", "data", "docs", "examples", "benchmarks", "findings")
PAGES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
CONF = ROOT / "conf"
OF_OTHERS = ("trainer", "hydra", "paths")  # keys that Lightning or Hydra take, beyond those in our files


def _prose(path: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_readme_fits_a_page():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 100] == []


def test_each_row_of_readmes_results_stands_in_the_results():
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| (\S+) / (\S+) / (\S+) % \| (\w+) \|$", (ROOT / "README.md").read_text(), re.M
    )
    assert len(rows) >= 2
    results = (ROOT / "docs" / "results.md").read_text().splitlines()
    for experiment, *figures, commit in rows:
        row = next(line for line in results if line.startswith(f"| `{experiment}` |"))
        assert all(figure in row for figure in [*figures, commit]), row


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", _prose(page))
    there = [link for link in links if "://" not in link]
    assert [link for link in there if not (page.parent / link).exists()] == []


def test_files_that_pages_name_exist():
    named = {
        (_name(page), found)
        for page in PAGES
        for found in re.findall(r"`((?:diffusion_art|conf|tests|benchmarks|examples|docs)/[\w/]+\.\w+)`", _prose(page))
    }
    assert len(named) > 60
    added = (ROOT / "docs" / "extending.md").read_text()  # its diffs make some of them
    missing = {each for each in named if not (ROOT / each[1]).is_file() and f"`{each[1]}`:" not in added}
    assert {each for each in missing if "NAME" not in each[1]} == set()


def _defined(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("tour", ["tour_picture", "tour_caption", "checkpoints", "judge"])
def test_names_of_a_tour_stand_in_their_files(tour):
    text = (ROOT / "docs" / f"{tour}.md").read_text()
    stops = re.findall(r"`(diffusion_art/[\w/]+\.py)` \(((?:`\w+`(?:, )?)+)\)", text)
    assert stops
    for path, names in stops:
        assert set(re.findall(r"\w+", names)) <= _defined(ROOT / path), path


def _flat(tree: Any, prefix: str) -> Iterator[str]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key != "defaults":
            yield f"{prefix}{key}"
            yield from _flat(value, f"{prefix}{key}.")


@cache
def _keys() -> frozenset[str]:
    """The keys with dots that the files of conf/ hold, by the packages that they are put into."""
    keys = set()
    for path in CONF.rglob("*.yaml"):
        text = path.read_text()
        group = path.parent.relative_to(CONF).as_posix().replace("/", ".")
        package = re.match(r"# @package (\S+)", text)
        group = package[1].removeprefix("_global_") if package else group.lstrip(".")
        prefix = f"{group}." if group else ""
        keys |= {key.removeprefix("text_to_image.") for key in _flat(yaml.safe_load(text), prefix)}
    return frozenset(keys)


def test_keys_that_pages_name_exist():
    keys = _keys()
    groups = {key.partition(".")[0] for key in keys if "." in key} - set(OF_OTHERS)
    pages = [page for page in PAGES if page.parent.name not in ("benchmarks", "findings")]
    named = {
        found
        for page in pages
        for found in re.findall(r"`'?\+?((?:[a-z_]+\.)+[a-z_0-9]+)(?:=[^`]*)?'?`", page.read_text())
        if found.partition(".")[0] in groups
    }
    named -= {name for name in named if re.search(r"\.(py|md|csv|html|png|log|yaml|json|sh)$", name)}
    assert len(named) > 30
    assert {name for name in named if name not in keys} == set()


def test_make_has_the_targets_that_pages_name():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {word for page in PAGES for word in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.M)}
    assert len(named) > 5
    assert named <= targets
