"""Commands of the pages, run as they are written, where that takes seconds; of the others it is said why not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fakes import toy_run
from tests.fakes_sources import wikiart_folder
from tests.test_documented_commands import COMMAND, named

NOT_RUN = {  # what a command matches -> why it is composed only (tests/test_documented_commands.py)
    r"^train .*(wikiart|painter128|trainer=ddp|trainer=gpu)": "needs a GPU",
    r"s3://|cmmd|source=wikiart|wandb": "needs a hub, a bucket or an account",
    r"FOLDER|PLACE|RUN/|HOST|\.\.\.|museum|coco/|My Pictures|~/|//a:": "has a name to fill in",
    r"path=(data/)?(wikiart|mine|a|b)\b|data/a": "names shards of somebody else",
    r"^(serve|stream|watch|end_to_end|doctor)\b": "tests of its own start it: it runs on, or takes a minute",
    r"^train\b|judge=train|^evaluate|^schedule_search": "takes minutes; tests of its own do less of it",
    r"^prepare\b(?!.*limit)": "paints thousands of pictures",
    r"^precompute|^posthoc_ema|logs/(wikiart|distill)|klimt|run=painter|format=": "needs what another command makes",
    r"^consolidate": "tests/test_more_machines.py runs it",
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
    assert run == {"sample", "shards", "prepare", "export"}
    assert len(list(as_written())) > 12
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


@pytest.mark.slow
def test_readmes_command_for_ones_own_pictures_trains_on_a_few_of_them(run_here, tmp_path: Path):
    (line,) = re.findall(r'^make train ARGS="(.*data.path=FOLDER)"', (ROOT / "README.md").read_text(), re.MULTILINE)
    wikiart_folder(tmp_path / "FOLDER", count=40)
    few = ("data.build.limit=64", "data.build.workers=1", "data.val_fraction=0.3", "data.val_samples=8")
    status, said, complaints = run_here(
        "train", *line.split(), *few, "data.num_workers=0", "trainer.max_steps=2", "run=few"
    )
    assert status == 0, complaints
    assert (tmp_path / "logs/openclipart/few/samples/step_00000002.png").is_file()
    assert "2 steps to go" in said
