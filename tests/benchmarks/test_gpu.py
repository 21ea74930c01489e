"""`benchmarks/gpu.py`: its parts on tiny shapes, its steps on a pretended GPU, and what it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import gpu as script
from gpu_sides import kernels, painter, training_parts
from gpu_sides.ground import SMOKE, Ground
from gpu_sides.part import Part, kept
from gpu_sides.steps import PLAIN, before_side, diffusers_side, our_side
from record import figure, missing, tables

from tests.devices.fake_gpu import FakeGpu

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
QUICK = "ceilings,shipped,norm,alone"
LINES = {line for part in script.PARTS.values() for line in part.lines}


def run(folder: Path, *words: str) -> list[dict]:
    """The rows that a start of the script on the CPU writes."""
    results = folder / "results"
    asked = ["smoke=true", "device=cpu", f"folder={folder / 'raw'}", f"results={results}", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", *asked], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads((results / "gpu.json").read_text())


def measured(rows: list[dict], parts: str) -> None:
    """Every line has one row, and those of `parts` have figures."""
    assert [row["measure"] for row in rows] == [line for part in script.PARTS.values() for line in part.lines]
    for name in parts.split(","):
        found = [row for row in rows if row["measure"] in script.PARTS[name].lines]
        assert all(row.get("ours", 0) > 0 for row in found), found


@pytest.mark.slow
def test_parts_run_on_tiny_shapes_and_another_start_takes_what_they_kept(tmp_path: Path):
    measured(run(tmp_path, f"parts={QUICK}"), QUICK)
    raw = tmp_path / "raw"
    assert {file.name for file in raw.glob("*.json")} == {f"{name}.json" for name in QUICK.split(",")}
    assert "| wikiart images/s as shipped" in (tmp_path / "RESULTS.md").read_text()
    ground = Ground(torch.device("cpu"), SMOKE, raw)
    assert kept(training_parts.shipped, ground)
    assert kept(training_parts.shipped, Ground(torch.device("cpu"), replace(SMOKE, batch=16), raw)) is None


@pytest.mark.slow
@pytest.mark.longest
def test_all_parts_run_on_tiny_shapes(tmp_path: Path):
    rows = run(tmp_path, f"parts={','.join(script.PARTS)}")
    reasons = {row["measure"]: row["reason"] for row in rows if "reason" in row}
    assert "not reached" in reasons.pop(painter.OURS)
    assert "did not reach it" in reasons.pop(painter.SOONER)
    assert all("LitServe does not install" in reason for reason in reasons.values())
    measured(rows, "share,eager,memory,launches,costs,compiled")


@pytest.mark.slow
@pytest.mark.parametrize("side", ["shipped", "clip", "diffusers"])
def test_the_steps_mix_no_devices(side: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    with FakeGpu():
        ground = Ground(torch.device("cuda"), SMOKE, tmp_path)
        made = {
            "shipped": lambda: our_side(ground),
            "clip": lambda: our_side(ground, *ground.clip(), *PLAIN, tower=training_parts.CLIP_TOWER),
            "diffusers": lambda: diffusers_side(ground, compiled=False),
        }[side]()
        assert made.seconds(ground, 1) > 0


def test_before_is_four_parts_of_adamw_without_fast_twins(tmp_path: Path):
    ground = Ground(torch.device("cpu"), SMOKE, tmp_path)
    before = before_side(ground)
    assert [len(part) for part in next(before.feed)] == [2, 2, 2, 2]
    assert not before.fast
    assert type(before.step.__self__.optimizer).__name__ == "AdamW"  # type: ignore[attr-defined]
    assert not before.step.__self__.module.step.terms  # type: ignore[attr-defined]


def test_without_a_gpu_every_line_says_so_and_keeps_the_figures_it_had(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    results = tmp_path / "results"
    script.main({"results": str(results)})
    rows = json.loads((results / "gpu.json").read_text())
    assert {row["measure"] for row in rows} == LINES
    assert all("finds no CUDA device" in row["reason"] for row in rows)
    old = figure(kernels.SHIPPED, 1234.0, gpu="a card")
    (results / "gpu.json").write_text(json.dumps([old]))
    script.main({"results": str(results)})
    rows = json.loads((results / "gpu.json").read_text())
    assert [row for row in rows if "ours" in row] == [old]
    assert ", a card. `python benchmarks/gpu.py" in tables(results)


def test_a_part_that_fails_or_has_no_time_left_stops_no_other(tmp_path: Path, monkeypatch):
    def fails(ground: Ground) -> dict:
        raise RuntimeError("no kernel image\nmore")

    broken = Part("broken", ("a line",), 5, fails, lambda raw, about: [])
    monkeypatch.setattr(script, "PARTS", {"broken": broken, "norm": kernels.norm, "costs": training_parts.costs})
    ground = Ground(torch.device("cpu"), SMOKE, tmp_path)
    asked = list(script.PARTS.values())
    rows = script.rows_of(ground, asked, {}, minutes=0.5, again=False)
    assert rows[0]["reason"] == "it failed: RuntimeError: no kernel image"
    assert [row["measure"] for row in rows if "ours" in row] == list(kernels.norm.lines)
    assert {row["reason"] for row in rows[3:]} == {"0.5 minutes were over; the same command goes on with it"}


def test_a_baseline_that_never_gets_there_counts_with_all_its_time():
    early = {"wall_s": 50.0, "style": 0.5, "palette": 0.6, "held_out": 0.2}
    there = {"wall_s": 200.0, "style": 0.96, "palette": 0.98, "held_out": 0.9}
    never = {**early, "wall_s": 3000.0}
    (ours,) = painter.painter128.rows({"ours": [early, there]}, {})
    assert ours["holds"]
    assert 100 < ours["ours"] < 200  # between the points, on the log axis
    (row,) = painter.baseline128.rows({"ours": [early, there], "theirs": [early, never]}, {})
    assert row["peer"] == 3000.0
    assert row["ratio"] == pytest.approx(3000 / ours["ours"], rel=1e-3)
    assert "not there yet" in row["peer_name"]
    (row,) = painter.painter128.rows({"ours": [early]}, {})
    assert row["reason"].startswith("not reached: style 50, palette 60, held_out 20 % after 50 s")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"device": "cpu"}, "smoke=true"),
        ({"device": "cpu", "smoke": "true"}, "results="),
        ({"parts": "shiped"}, "parts=shiped is not known"),
    ],
)
def test_figures_that_mean_nothing_are_not_written_among_results(words: dict[str, str], said: str):
    with pytest.raises(SystemExit, match=said):
        script.main(words)


def test_missing_rows_may_tell_more():
    assert missing("a line", "because", gpu="a card")["gpu"] == "a card"
