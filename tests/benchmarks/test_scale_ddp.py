"""`benchmarks/scale_ddp.py`: the ratio is that within each round, and its spread is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import scale_ddp
from record import tables, write


def test_a_ratio_is_the_median_of_those_within_the_rounds_and_holds_from_its_goal_on(tmp_path: Path):
    # the machine is half as fast in the second round, which changes no ratio
    speeds = {"one": [10.0, 5.0, 10.0], "two": [19.2, 9.6, 18.0], "apart": [19.6, 9.9, 20.0]}
    rows = [*scale_ddp.claims(speeds, per_process=16), scale_ddp.memory(0.51)]
    assert rows[0]["ratios"] == [0.96, 0.96, 0.9]
    assert rows[0]["ratio"] == pytest.approx(0.96)
    assert [row["holds"] for row in rows if "holds" in row] == [True, True]
    assert rows[1]["ours"] == pytest.approx(0.99)
    assert not scale_ddp.claims({"one": [10.0], "two": [18.0], "apart": [20.0]}, per_process=16)[0]["holds"]
    assert not scale_ddp.memory(0.56)["holds"]
    write("scale_ddp", rows, results=tmp_path / "results")
    assert "0.96 (0.9 to 0.96)" in tables(tmp_path / "results")
