"""`benchmarks/first_minutes.py`, with an environment that is there and a training of seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from first_minutes import Seconds, main, rows

TRAIN = "+experiment=quickstart32 +debug=tiny data.source.count=64 data.num_workers=0 data.url=shards"


def test_parts_that_are_done_are_not_done_again(tmp_path):
    seconds = Seconds(tmp_path / "seconds.json")
    seconds.once("clone", lambda: None)
    seconds.keep("first grid", 100.0)
    again = Seconds(tmp_path / "seconds.json")
    again.once("clone", lambda: pytest.fail("done before"))
    told = {row["measure"]: row for row in rows(again, here={})}
    assert told["clone to the first grid of a trained network, s"]["holds"]
    assert not [name for name in told if "install" in name or "last" in name]


@pytest.mark.slow
@pytest.mark.longest
def test_a_clone_trains_and_the_rows_say_when_its_grids_were_there(tmp_path: Path):
    options = {
        "folder": str(tmp_path / "work"),
        "train": TRAIN,
        "venv": sys.prefix,
        "results": str(tmp_path / "results"),
    }
    main(**options)
    told = {row["measure"]: row for row in json.loads((tmp_path / "results" / "first_minutes.json").read_text())}
    first, last = (
        told[f"clone to the {name} grid{more}, s"]["ours"]
        for name, more in (("first", " of a trained network"), ("last", ""))
    )
    assert 0 < told["clone to the grid of step 0, which is noise, s"]["ours"] <= first <= last
    assert (tmp_path / "work/diffusion_art/logs/tiny/first_minutes/samples/step_00000012.png").is_file()
    main(**options)  # nothing is left to do
    again = json.loads((tmp_path / "results" / "first_minutes.json").read_text())
    assert [row["ours"] for row in again] == [row["ours"] for row in told.values()]
