"""Every command that a page, a yaml or a command's own docstring names composes: its overrides and choices exist."""

from __future__ import annotations

import ast
import re
import shlex

import pytest

from tests.conftest import ROOT

PAGES = [path.read_text() for name in ("", "data", "docs", "examples") for path in (ROOT / name).glob("*.md")]
PAGES += [path.read_text() for path in (ROOT / "conf").rglob("*.yaml")]
PAGES += [ast.get_docstring(ast.parse(path.read_text())) or "" for path in (ROOT / "diffusion_art").glob("*.py")]
TABLE = re.findall(r"^\|[^|]+\| `(\w+[^`]*)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
PAGES += [f"-m diffusion_art.{command}" for command in TABLE]  # of README's tasks, written without it
COMMAND = re.compile(r"-m diffusion_art\.(\w+)(?![\w.])([^`\n]*)")
BENCHMARK = re.compile(r"python benchmarks/(\w+)\.py([^`\n]*)")
CHOICES = re.compile(r"=([\w.-]+)(,[\w.-]+)+$")  # of a multi-run


def named(pattern: re.Pattern[str]) -> list[tuple[str, ...]]:
    """(command, word, word, ...) of all pages, each once."""
    found = (match.groups() for page in PAGES for match in pattern.finditer(page))
    return sorted({(name, *shlex.split(words, comments=True)) for name, words in found})


def longest(commands: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Those of which no other one holds all words: where that one composes, the shorter one does."""
    return [each for each in commands if not any(set(each) < set(other) and each[0] == other[0] for other in commands)]


def test_the_pages_name_many_commands():
    assert len(named(COMMAND)) > 40
    assert {name for name, *_ in named(COMMAND)} > {"train", "sample", "evaluate", "prepare", "stream", "serve"}
    assert len(TABLE) > 10


@pytest.mark.slow
@pytest.mark.parametrize("words", longest(named(COMMAND)), ids=" ".join)
def test_a_named_command_composes(words, run_here):
    name, *arguments = words
    if "--status" in arguments:  # no config: a table of servers that run
        assert (ROOT / "diffusion_art/streaming/status.py").is_file()
        return
    if "-m" in arguments:  # `--cfg` shows one run
        arguments = [CHOICES.sub(r"=\1", word) for word in arguments if word != "-m"]
    arguments = [word for word in arguments if "interval(" not in word]  # of a search, which is no one run either
    arguments = ["lint" if word.startswith("lint|") else word for word in arguments]
    status, said, complaints = run_here(name, *arguments, "--cfg", "job")
    assert status == 0, complaints
    assert said


@pytest.mark.parametrize("words", named(BENCHMARK), ids=" ".join)
def test_a_named_benchmark_takes_what_it_is_given(words):
    name, *arguments = words
    source = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text())
    main = next(node for node in source.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    known = {argument.arg for argument in main.args.args} | {
        node.args[0].value
        for node in ast.walk(main)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "options.pop"
    }
    assert {word.partition("=")[0] for word in arguments} <= known
