"""Commands of the pages, run as they are written, where that takes seconds; for the others it is said why they are not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import toy_run
from tests.test_documented_commands import COMMAND, named

NOT_RUN = {  # what a command matches -> why it is composed only (tests/test_documented_commands.py)
    r"^train .*(wikiart|painter128|trainer=ddp|trainer=gpu)": "needs a GPU",
    r"s3://|cmmd|source=wikiart|repo_id|wandb|hf-hub": "needs a hub, a bucket or an account",
    r"FOLDER|PLACE|RUN/|HOST|\.\.\.|museum|coco/|My Pictures|~/|//a:|path=(data/)?(wikiart|mine|a|b)\b|data/a": "has a name to fill in",
    r"^(serve|stream|watch|end_to_end|doctor)\b": "tests of its own start it: it runs on, or takes a minute",
    r"^train\b(?!.*debug=tiny)|\b-m\b|judge=train": "trains for minutes",
    r"^evaluate\b(?!.*metrics=val_x0)|^schedule_search": "measures for minutes",
    r"colourfulness": "docs/extending.md adds it first",
    r"^posthoc_ema|logs/(wikiart|distill)|klimt|run=painter|format=|logs/quickstart/[ab]\b": "needs what another command makes",
}


def why_not(words: tuple[str, ...]) -> str | None:
    """Why the command is not run here; None for one that is."""
    line = " ".join(words)
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, line)), None)


def as_written() -> Iterator[tuple[str, ...]]:
    yield from (words for words in named(COMMAND) if why_not(words) is None and len(words) > 1)


@pytest.fixture
def place(tmp_path: Path, painter_shards: Path) -> Path:
    """A folder with the runs and shards that the pages name, small ones."""
    for run in ("quickstart", "quickstart32/tutorial"):
        toy_run(tmp_path / "logs" / run)
    for name in ("painter-32px", "tutorial"):
        shutil.copytree(painter_shards, tmp_path / "data" / name)
    return tmp_path


def test_every_kind_of_command_is_run_or_it_is_said_why_not():
    run = {words[0] for words in as_written()}
    assert {"sample", "shards", "prepare", "train", "export"} <= run
    assert len(list(as_written())) > 20
    unused = [
        pattern for pattern in NOT_RUN if not any(re.search(pattern, " ".join(words)) for words in named(COMMAND))
    ]
    assert unused == []


@pytest.mark.slow
def test_commands_of_the_pages_do_what_they_say(place: Path, run_here):
    failed = {}
    for words in as_written():
        if words[0] == "prepare":
            shutil.rmtree(place / "data" / "tutorial", ignore_errors=True)
        status, said, complaints = run_here(*words)
        if status:
            failed[" ".join(words)] = said[-300:] + complaints[-600:]
    assert failed == {}
