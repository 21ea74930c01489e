"""metrics.csv is followed while the run's logger writes it: what is new is told once, and what was replaced anew."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from diffusion_art.reports.curves import Curve, Curves, MetricsFile
from diffusion_art.training.run.csv_logger import RunCSVLogger


class Reader:
    """The rows that were told, and how often all was told anew."""

    def __init__(self, path: Path) -> None:
        self.file = MetricsFile(path)
        self.rows: list[dict[str, float]] = []
        self.restarts = 0

    def _restarted(self) -> None:
        self.rows.clear()
        self.restarts += 1

    def steps(self) -> list[float]:
        self.file.advance(self.rows.append, self._restarted)
        return [row["step"] for row in (*self.rows, *([self.file.last] if self.file.last else []))]


def test_rows_of_the_run_s_own_logger_are_told_as_they_come(tmp_path):
    logger = RunCSVLogger(folder=str(tmp_path), flush_every_n=1)
    reader = Reader(tmp_path / "metrics.csv")
    assert reader.steps() == []
    for step in range(3):
        logger.log_metrics({"train/loss": 1.0 / (step + 1)}, step=step)
        assert reader.steps() == list(range(step + 1))
    logger.log_metrics({"train/loss": 0.3}, step=2)  # the last row again: the file is another one
    logger.save()
    assert reader.steps() == [0, 1, 2]
    assert reader.file.last is not None
    assert reader.file.last["train/loss"] == 0.3
    assert reader.restarts == 1, "the first look"
    logger.log_metrics({"val/loss": 0.5}, step=3)  # a new column
    assert reader.steps() == [0, 1, 2, 3]
    assert reader.restarts == 2
    again = RunCSVLogger(folder=str(tmp_path), flush_every_n=1)  # resumed from step 1
    again.log_metrics({"train/loss": 7.0}, step=1)
    again.log_metrics({"train/loss": 8.0}, step=2)
    assert reader.steps() == [0, 1, 2]
    assert [row["train/loss"] for row in reader.rows] == [1.0, 7.0]


def test_only_new_bytes_are_read_and_half_a_line_waits(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,train/loss\r\n" + b"".join(b"%d,1.5\r\n" % step for step in range(5000)))
    reader = Reader(path)
    assert len(reader.steps()) == 5000
    with path.open("ab") as file:
        file.write(b"5000,1.2\r\n5001,0.")
    parsed = []
    parse = "diffusion_art.reports.curves.row_of"
    monkeypatch.setattr(parse, lambda columns, line: parsed.append(line) or {"step": float(line.split(b",")[0])})
    assert reader.steps()[-2:] == [4999, 5000]
    assert len(parsed) == 2
    with path.open("ab") as file:
        file.write(b"9\r\n")
    assert reader.steps()[-1] == 5001
    assert len(parsed) == 4
    assert reader.restarts == 1


def test_cells_that_are_no_numbers_are_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss,note\n0,nan,warm\n1,0.5,\nbroken\n2,inf,\n")
    curves = Curves(path, most=10)
    curves.update()
    assert curves.points("train/loss") == {"x": [1.0], "y": [0.5]}
    assert curves.names == ["train/loss"]


@pytest.mark.parametrize("count", [1, 100, 101, 999, 40_000])
def test_a_curve_is_bounded_and_keeps_means_ends_and_extremes(count):
    curve = Curve(100)
    values = [((7 * k) % 101) / 101 for k in range(count)]
    for step, value in enumerate(values):
        curve.add(step, value)
    told = curve.points()
    assert len(told["x"]) <= 100
    assert told["x"][-1] == count - 1
    assert told["x"] == sorted(told["x"])
    if count <= 100:
        assert told["y"] == pytest.approx(values, rel=1e-5)
        assert "low" not in told
    else:
        assert len(told["x"]) >= 50
        width = [b - a for a, b in zip([-1, *told["x"]], told["x"])]
        assert sum(w * y for w, y in zip(width, told["y"])) == pytest.approx(sum(values), rel=1e-4)
        assert min(told["low"]) == pytest.approx(min(values), abs=1e-5)
        assert max(told["high"]) == pytest.approx(max(values), abs=1e-5)


def test_time_is_counted_over_all_sessions_of_a_run(tmp_path):
    for session in range(2):
        logger = RunCSVLogger(folder=str(tmp_path), flush_every_n=1)
        logger._began -= 100  # a session of 100 s
        logger.log_metrics({"train/loss": 1.0}, step=session)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["time/run_s"].tolist() == pytest.approx([100, 200], abs=5)
