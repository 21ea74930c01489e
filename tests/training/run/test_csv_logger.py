"""metrics.csv survives resumes, new columns and kills."""

from __future__ import annotations

import pandas as pd

from diffusion_art.training.run.csv_logger import RunCSVLogger


def test_rows_columns_and_late_values(tmp_path):
    logger = RunCSVLogger(folder=str(tmp_path), flush_every_n=2)
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.log_metrics({"loss": 0.5}, step=2)
    logger.log_metrics({"val": 9.0}, step=2)
    logger.log_metrics({"loss": 0.4}, step=3)
    logger.finalize("success")
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["step"].tolist() == [1, 2, 3]
    assert table["loss"].tolist() == [1.0, 0.5, 0.4]
    assert table["val"].tolist()[1] == 9.0


def test_a_kill_loses_only_what_was_not_flushed(tmp_path):
    logger = RunCSVLogger(folder=str(tmp_path), flush_every_n=3)
    for step in range(1, 9):
        logger.log_metrics({"loss": float(step)}, step=step)
    assert pd.read_csv(tmp_path / "metrics.csv")["step"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_resumed_run_replaces_the_steps_it_repeats(tmp_path):
    first = RunCSVLogger(folder=str(tmp_path), flush_every_n=1)
    for step in range(1, 7):
        first.log_metrics({"loss": float(step)}, step=step)
    again = RunCSVLogger(folder=str(tmp_path), flush_every_n=1)
    again.log_metrics({"loss": 50.0, "extra": 1.0}, step=5)
    again.log_metrics({"loss": 60.0}, step=6)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["loss"].tolist() == [1.0, 2.0, 3.0, 4.0, 50.0, 60.0]


def test_rows_of_a_branch_that_was_left_go_and_give_no_values_to_the_new_one(tmp_path):
    first = RunCSVLogger(folder=str(tmp_path), flush_every_n=1)
    for step in range(8):
        first.log_metrics({"loss": float(step), "val": 9.0}, step=step)
    again = RunCSVLogger(folder=str(tmp_path), flush_every_n=1)
    again.go_on_from(5)
    again.log_metrics({"val": 4.0}, step=4)  # a validation that was due when the checkpoint was written
    again.log_metrics({"loss": 70.0}, step=7)
    again.log_metrics({"other": 1.0}, step=7)
    again.finalize("success")
    table = pd.read_csv(tmp_path / "metrics.csv").set_index("step")
    assert table.index.tolist() == [0, 1, 2, 3, 4, 7]
    assert table["val"].dropna().tolist() == [9.0, 9.0, 9.0, 9.0, 4.0]
    assert table.loc[7, ["loss", "other"]].tolist() == [70.0, 1.0]
