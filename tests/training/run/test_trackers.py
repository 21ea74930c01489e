"""Trackers: one record over resumes, settings to compare, pictures, one series of epochs."""

from __future__ import annotations

import json
import shlex
import sqlite3

import pandas as pd
import pytest
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from PIL import Image

from diffusion_art.files import command_line, without_secrets, words_without_secrets
from diffusion_art.launching.names import wandb_offline
from diffusion_art.training.run.trackers import RunWandb, begin, run_name, show_pictures, tell_settings

RUN = ["+experiment=quickstart32", "+debug=tiny", "run=tracked", "data.source=null", "callbacks.progress=null"]


@pytest.fixture
def twice(run_command, painter_shards, tmp_path):
    """Trains four steps, then goes on to six, under a tracker; the run folder."""

    def run(logger: str):
        common = [*RUN, f"data.path={painter_shards}", "data.num_workers=0", "data.url=shards", f"logger={logger}"]
        for extra in (["trainer.max_steps=4"], ["trainer.max_steps=6", "ckpt_path=last"]):
            said = run_command("train", *common, "trainer.val_check_interval=2", *extra, cwd=tmp_path)
            assert said.returncode == 0, said.stdout + said.stderr
        return tmp_path / "logs/tiny/tracked"

    return run


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # of SQLAlchemy, as MLflow calls it
def test_a_tracker_that_cannot_begin_ends_the_run_in_a_sentence(run_here, painter_shards, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow keeps its address there, for later tests too
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    words = [*RUN, f"data.path={painter_shards}", "data.url=shards", "logger=mlflow"]
    status, said, complaints = run_here("train", *words, "logger.mlflow.tracking_uri=http://127.0.0.1:9")
    assert status == 1, said
    assert "error: MLFlow cannot begin its record: API request to http://127.0.0.1:9/" in complaints
    assert complaints.rstrip().endswith("or train with logger=csv.")
    assert "Traceback" not in said + complaints


def test_a_tracker_whose_folder_cannot_be_made_leaves_no_run_folder(run_here, painter_shards, tmp_path):
    (tmp_path / "file").touch()
    words = [*RUN, f"data.path={painter_shards}", "data.url=shards", "logger=wandb", "logger.wandb.folder=file/in"]
    status, said, complaints = run_here("train", *words)
    assert status == 1, said
    assert complaints.startswith("error: [Errno 20] Not a directory: 'file/in'")
    assert not (tmp_path / "logs/tiny/tracked").exists()


class Failing(Logger):
    """A tracker whose server can be away."""

    name, version, away, asked = "failing", 0, False, 0

    def log_hyperparams(self, params, *args, **kwargs):
        self.log_metrics({})

    def log_metrics(self, metrics, step=None):
        self.asked += 1
        if self.away:
            raise ConnectionError("connection refused.\nand more")

    def finalize(self, status):
        self.log_metrics({})


def test_a_tracker_that_fails_in_mid_run_is_told_once_and_left_alone_for_a_while(caplog, monkeypatch):
    logger = Failing()
    with caplog.at_level("INFO"):
        begin(logger, {})
        logger.away = True
        for step in range(5):
            logger.log_metrics({"loss": 1.0}, step=step)
        assert logger.asked == 2
        monkeypatch.setattr("diffusion_art.training.run.trackers.REST_S", 0.0)
        logger.log_metrics({"loss": 1.0}, step=5)
        logger.away = False
        logger.log_metrics({"loss": 1.0}, step=6)
        monkeypatch.undo()
        logger.away = True
        logger.log_metrics({"loss": 1.0}, step=7)
        logger.finalize("success")  # tried all the same: a record that is left open looks like a run that goes on
    assert logger.asked == 6
    lost = "Failing fails: connection refused. The run goes on, and metrics.csv has what is lost there."
    assert caplog.messages == [lost, "Failing answers again", lost]


@pytest.mark.parametrize(("mode", "offline"), [("disabled", False), ("online", False), ("offline", True), ("", True)])
def test_what_wandb_mode_says_holds(mode, offline, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert wandb_offline() is offline


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # of SQLAlchemy, as MLflow calls it
def test_mlflow_goes_on_in_one_record_with_settings_and_pictures(twice, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    twice("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/logs/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert found.info.run_name == "tiny/tracked"
    assert found.data.params["optim/lr"] == "0.0028"
    steps = [point.step for point in client.get_metric_history(found.info.run_id, "train/loss")]
    assert steps == sorted(set(steps))
    assert max(steps) >= 5
    assert any(file.path.startswith("images/samples") for file in client.list_artifacts(found.info.run_id, "images"))


@pytest.mark.slow
def test_tensorboard_has_pictures_and_settings_and_epoch_is_one_series(twice):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = twice("tensorboard")
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in events.Images("samples")] == [0, 4, 6]
    assert "_hparams_/experiment" in events.summary_metadata
    rows = pd.read_csv(run / "metrics.csv")  # Lightning's own `epoch` is 0 for ever
    assert rows["epoch"].notna().all()
    assert rows["epoch"].is_monotonic_increasing
    assert rows["epoch"].iloc[0] > 0


@pytest.mark.slow
def test_wandb_goes_on_under_one_id_with_captions(twice):
    run = twice("wandb")
    ids = {path.name.rsplit("-", 1)[1] for path in (run / "wandb").glob("offline-run-*")}
    assert ids == {json.loads((run / "tracker_ids.json").read_text())["wandb"]}
    assert list(run.glob("wandb/offline-run-*/files/media/images/samples_*.png"))
    assert all(b'"lr":0.0028' in record.read_bytes() for record in run.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_trackio_goes_on_in_one_run_with_settings_and_captions(twice, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = twice("trackio")
    with sqlite3.connect(tmp_path / "trackio/diffusion_art.db") as kept:
        rows = [
            (id, step, json.loads(told)) for id, step, told in kept.execute("SELECT run_id, step, metrics FROM metrics")
        ]
        ((config,),) = kept.execute("SELECT config FROM configs")
    assert {id for id, _, _ in rows} == {json.loads((run / "tracker_ids.json").read_text())["trackio"]}
    steps = [step for _, step, told in rows if "train/loss" in told]
    assert steps == sorted(set(steps))
    assert max(steps) == 5
    assert json.loads(config)["optim"]["lr"] == 0.0028
    painted = [told["samples/00"] for _, _, told in rows if "samples/00" in told]
    assert len(painted) == 3  # at steps 0, 4 and 6
    assert all((tmp_path / "trackio/media" / picture["file_path"]).is_file() for picture in painted)
    assert painted[0]["caption"]


@pytest.mark.slow
def test_each_job_of_a_sweep_has_a_wandb_record_of_its_own(run_command, painter_shards, tmp_path):
    common = [*RUN, f"data.path={painter_shards}", "data.num_workers=0", "data.url=shards", "trainer.max_steps=1"]
    said = run_command("train", "-m", *common, "logger=wandb", "seed=1,2", cwd=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    for job in (tmp_path / "logs/tiny/sweep_tracked" / number for number in "01"):
        (record,) = job.glob("wandb/offline-run-*")
        assert record.name.endswith(json.loads((job / "tracker_ids.json").read_text())["wandb"])


def test_a_folder_keeps_the_id_that_wandb_knows_its_run_by(tmp_path):
    folders = [str(tmp_path / name) for name in ("one", "one", "two")]
    loggers = [RunWandb(folder=folder, log_dir=str(tmp_path), project="p", offline=True) for folder in folders]
    first, again, other = (logger.version for logger in loggers)
    assert first == again != other


def test_tensorboard_is_given_pictures_and_settings(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="", version="")
    tell_settings(logger, {"seed": 3, "optim": {"lr": 0.1}, "optimized_metric": "val/loss"})
    show_pictures(logger, Image.new("RGB", (8, 6)), [], [], step=4)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    (picture,) = events.Images("samples")
    assert (picture.step, picture.width, picture.height) == (4, 8, 6)
    assert b"optim/lr" in events.summary_metadata["_hparams_/session_start_info"].plugin_data.content


def test_jobs_of_a_sweep_have_names_of_their_own(tmp_path):
    logs = str(tmp_path / "logs")
    assert run_name(f"{logs}/wikiart/sweep_2026/1", logs) == "wikiart/sweep_2026/1"
    assert run_name("/elsewhere/run", logs) == "run"


def test_no_tracker_is_told_a_token():
    assert words_without_secrets(["data.token=s", "+token=s", "seed=1"]) == ["seed=1"]
    assert without_secrets({"data": {"token": "s", "url": "auto"}, "mix": [{"token": "s"}]}) == {
        "data": {"url": "auto"},
        "mix": [{}],
    }


def test_the_command_in_a_report_can_be_pasted_and_is_what_was_typed():
    kept = ["optim.lr=tag(log,interval(1,2))", "prompts=['a b']", "name='a,b'", "x='$b'", "y='1e5'", "z='True'"]
    words = ["run='logs/a'", "data.token=s", *kept]
    said = command_line("train", words)
    assert said.startswith("python -m diffusion_art.train run=logs/a ")
    assert """ "prompts=['a b']" "name='a,b'" """ in said
    assert "$b'\"'\"''" in said
    assert shlex.split(said)[4:] == kept
