"""What the callbacks promise, shown on real little runs."""

from __future__ import annotations

import json
import math
import pickle
import re
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from diffusion_art.callbacks.caption_following import CaptionFollowing
from diffusion_art.callbacks.checkpoint import RunCheckpoints
from diffusion_art.callbacks.cursor import Cursor
from diffusion_art.callbacks.forecast import Forecast, _places
from diffusion_art.callbacks.loss_plot import plot_losses
from diffusion_art.callbacks.peers import config_digest
from diffusion_art.callbacks.reconstructions import Reconstructions
from diffusion_art.callbacks.report import RunReport
from diffusion_art.callbacks.sample_grid import SampleGrid
from diffusion_art.callbacks.verdict import Verdict
from diffusion_art.data.curriculum import Curriculum
from diffusion_art.data.workers import LostWorker
from diffusion_art.diffusion.objective import NoWeighting, Objective, Stratified
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.errors import UserError
from diffusion_art.launching.fit import quieten
from diffusion_art.record import KEY
from diffusion_art.reports.grids import grids_of
from diffusion_art.sources.painter import Painter
from diffusion_art.tensors import Batch
from diffusion_art.training.averages.ema import Ema
from diffusion_art.training.module import DiffusionModule
from diffusion_art.training.optim import Constant
from diffusion_art.training.processes.sharded import FoldersToo
from diffusion_art.training.run.csv_logger import RunCSVLogger
from diffusion_art.training.run.resume import place_loops
from diffusion_art.training.step import TrainingStep
from tests.fakes import toy_model

TINY = [
    "+experiment=quickstart32",
    "+debug=tiny",
    "data.source=null",
    "callbacks.progress=null",
    "callbacks.samples=null",
]


@pytest.fixture
def tiny(painter_shards) -> list[str]:
    return [*TINY, f"data.path={painter_shards}", "data.num_workers=0"]


@pytest.mark.slow
def test_checkpoints_kept_are_the_newest_and_the_best(tiny, run_here, tmp_path):
    status, said, complaints = run_here(
        "train",
        *tiny,
        "run=kept",
        "trainer.val_check_interval=2",
        "callbacks.checkpoints.every_n_steps=2",
        "callbacks.checkpoints.keep_last=2",
        "callbacks.checkpoints.keep_best=2",
    )
    assert status == 0, said + complaints
    run = tmp_path / "logs/tiny/kept"
    val = pd.read_csv(run / "metrics.csv").dropna(subset=["val/loss"]).set_index("step")["val/loss"]
    best = val.nsmallest(2)
    folder = run / "checkpoints"
    kept = {int(path.stem[5:]) for path in folder.glob("step_*.ckpt")}
    assert kept == {12, 10} | {step + step % 2 for step in best.index}
    assert (folder / "last.ckpt").resolve().name == "step_00000012.ckpt"
    assert torch.load(folder / "best.ckpt", weights_only=True)["global_step"] == best.index[0] + best.index[0] % 2


def test_a_metric_to_keep_the_best_by_that_is_not_measured_is_told_once(tiny, run_here, tmp_path):
    words = [*tiny, "data.url=shards", "trainer.max_steps=2", "trainer.val_check_interval=1", "run=best"]
    words += ["callbacks.checkpoints.monitor=val/los"]
    status, said, complaints = run_here("train", *words)
    assert status == 0, said + complaints
    told = "callbacks.checkpoints.monitor=val/los is not among what a validation measured (val/loss, "
    assert (said + complaints).count(told) == 1
    assert not (tmp_path / "logs/tiny/best/checkpoints/best.ckpt").exists()


class Lost:
    """Batches of a validation, before the second of which a worker is gone."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        yield self.batch
        raise LostWorker("a worker that prepares the data was killed")


class KeptWeights(Callback):
    """Those that the last step left."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *of_the_batch: Any) -> None:
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated", "ignore:.*does not have many workers")
def test_a_worker_lost_in_a_validation_leaves_the_weights_that_are_trained_and_the_validation_to_come(tmp_path):
    step = TrainingStep(toy_model().train(), Objective(times=Stratified(), weighting=NoWeighting()))
    adamw, averages = partial(torch.optim.AdamW, lr=1e-2), partial(Ema, decay=0.9)
    module = DiffusionModule(step, optimizer=adamw, lr_schedule=Constant(warmup_steps=0), ema=averages)
    batch = Batch(torch.zeros(2, 3, 16, 16), ["red", "blue"], ["a", "b"], [0, 1], cursor=1)
    kept, saves = KeptWeights(), RunCheckpoints(folder=str(tmp_path), every_n_steps=0)
    settings: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    settings |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "max_steps": 4, "val_check_interval": 2}
    training: Any = DataLoader([batch] * 4, batch_size=None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(LostWorker):
        Trainer(callbacks=[kept, saves], **settings).fit(module, training, Lost(batch))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert all(torch.equal(saved["state_dict"][name], value) for name, value in kept.weights.items())
    assert any(not torch.equal(saved[KEY]["ema"][name[6:]], value) for name, value in kept.weights.items())
    place_loops(saved, batches_per_step=1, validates=lambda batches: True)
    assert saved["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"]["started"] == 1


def test_a_link_is_replaced_in_one_step(tmp_path):
    saver = RunCheckpoints(folder=str(tmp_path), keep_last=2)
    for step in (1, 2, 3, 4):
        (tmp_path / f"step_{step:08d}.ckpt").write_text(str(step))
    saver.best = [(0.1, "step_00000001.ckpt")]
    saver._prune()
    assert sorted(path.name for path in tmp_path.glob("step_*.ckpt")) == [
        "step_00000001.ckpt",
        "step_00000003.ckpt",
        "step_00000004.ckpt",
    ]
    again = RunCheckpoints(folder=str(tmp_path))
    again.load_state_dict({"best": [[0.1, "step_00000001.ckpt"], [0.2, "step_00000002.ckpt"]]})
    assert again.best == [(0.1, "step_00000001.ckpt")]  # the other file is gone


def test_a_checkpoint_takes_the_place_of_a_file_or_folder_when_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))  # nothing passes through another disk
    file, folder = tmp_path / "step_00000001.ckpt", tmp_path / "step_00000002.ckpt"
    file.write_bytes(b"before")
    folder.mkdir()
    (folder / "plain.pt").touch()
    for path in (file, folder):
        with pytest.raises((pickle.PicklingError, AttributeError)):
            FoldersToo().save_checkpoint({"weights": torch.zeros(9), "cannot be": lambda: 0}, path)
    assert file.read_bytes() == b"before"
    assert folder.is_dir()
    for path in (file, folder):
        FoldersToo().save_checkpoint({"global_step": 3}, path)
        assert torch.load(path, weights_only=True) == {"global_step": 3}
    assert _names(tmp_path) == [file.name, folder.name]


def test_a_checkpoint_for_which_the_disk_has_no_room_is_told_as_that(tmp_path):
    path = tmp_path / "step_00000001.ckpt"
    (tmp_path / "step_00000001.ckpt.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"step_00000001\.ckpt cannot be written: No space left"):
        FoldersToo().save_checkpoint({"weights": torch.zeros(10**6)}, path)
    assert _names(tmp_path) == []


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_pictures(tiny, run_here, tmp_path):
    status, _, complaints = run_here(
        "train", *tiny, "run=burst", "optim.lr=1e30", "trainer.gradient_clip_val=null", "lr_schedule=constant"
    )
    assert status == 1
    assert complaints.count("error: ") == 1
    assert "the loss became" in complaints
    run = tmp_path / "logs/tiny/burst"
    record = json.loads((run / "non_finite.json").read_text())
    assert len(record["keys"]) == 8
    assert record["keys"][0] in complaints
    for path in (run / "checkpoints").glob("step_*.ckpt"):
        saved = torch.load(path, weights_only=True)
        assert saved["global_step"] <= record["step"]


@pytest.mark.slow
def test_validation_uses_the_averaged_weights_and_says_the_same_twice(tiny, run_here, tmp_path):
    for name, extra in (("one", []), ("two", ["data.num_workers=2"])):
        status, said, complaints = run_here("train", *tiny, f"run={name}", *extra)
        assert status == 0, said + complaints
    tables = [pd.read_csv(tmp_path / f"logs/tiny/{name}/metrics.csv") for name in ("one", "two")]
    for column in ("val/loss", "val/loss_clean", "val/loss_noisy", "train/loss"):
        assert tables[0][column].dropna().tolist() == tables[1][column].dropna().tolist()
        assert tables[0][column].notna().any()
    saved = torch.load(tmp_path / "logs/tiny/one/checkpoints/last.ckpt", weights_only=True)
    ema = saved[KEY]["ema"]
    assert any(not torch.equal(ema[name], saved["state_dict"][f"model.{name}"]) for name in ema)


def test_losses_are_drawn(tmp_path):
    table = pd.DataFrame({"step": range(50), "train/loss": [1 / (1 + k) for k in range(50)]})
    table["val/loss"] = [0.5 if step % 10 == 0 else None for step in range(50)]
    plot_losses(table, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"


def test_a_plot_takes_the_place_of_the_former_when_it_is_whole(tmp_path, monkeypatch):
    def cut_short(canvas, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "loss.png").write_bytes(b"before")
    monkeypatch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg.print_png", cut_short)
    with pytest.raises(OSError, match="No space"):
        plot_losses(pd.DataFrame({"step": [1], "train/loss": [1.0]}), tmp_path / "loss.png")
    assert _names(tmp_path) == ["loss.png"]
    assert (tmp_path / "loss.png").read_bytes() == b"before"


def test_config_digests_tell_configs_apart():
    assert config_digest({"a": 1, "b": [1, 2]}) == config_digest({"b": [1, 2], "a": 1})
    assert config_digest({"a": 1}) != config_digest({"a": 2})


def test_a_run_says_what_it_will_do_and_after_its_first_steps_how_long_that_takes(tiny, run_here, tmp_path):
    words = [word for word in tiny if word != "callbacks.samples=null"]
    status, said, complaints = run_here("train", *words, "run=told", "callbacks.forecast.after_steps=5")
    assert status == 0, said + complaints
    folder = "logs/tiny/told"
    begun = said.index(f"12 steps to go. Look at {folder}/samples as it trains, and at {folder}/report.html.")
    assert begun < said.index("step 0: samples in")
    assert "larger" not in said
    told = re.search(r"about \d+ s to go: 6 steps of [\d.e-]+ s, sample grids of [\d.e-]+ s at 2 of them\.", said)
    assert told is not None, said
    assert told.start() < said.index("step 6: samples in")


def test_a_run_is_told_where_to_look_by_what_it_will_leave():
    how: Any = {"folder": "run/samples", "sampler": Euler(num_steps=1), "guidance_scale": 1.0}
    grid = SampleGrid(prompts=["red"], **how)
    report = RunReport(folder="run")

    def told(*callbacks: Callback) -> str:
        return _places(Trainer(callbacks=list(callbacks), logger=False, enable_checkpointing=False), Path("run"))

    assert told(grid, report) == " Look at run/samples as it trains, and at run/report.html."
    assert told(report) == " Look at run/report.html."
    assert told() == ""
    assert told(SampleGrid(prompts=[], **how)) == ""


@pytest.mark.slow
def test_a_run_that_is_stopped_early_says_where_and_why(tiny, run_here):
    stops = "+callbacks.stops={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss, patience: 1}"
    asked = [stops, "optim.lr=1", "trainer.val_check_interval=1", "trainer.max_steps=9", "callbacks.samples=null"]
    status, said, complaints = run_here("train", *tiny, *asked)
    assert status == 0, complaints
    assert re.search(
        r"^the run ended at step [2-8] of 9\. Monitored metric val/loss did not improve", said, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("every", "told"),
    [
        (13, True),
        pytest.param(12, False, marks=pytest.mark.slow),
        pytest.param("00:00:00:01", False, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_ends_before_its_first_validation_says_so(tiny, run_here, every, told):
    asked = [*tiny, f"trainer.val_check_interval={every}", "trainer.max_steps=12", "trainer.accumulate_grad_batches=2"]
    status, said, complaints = run_here("train", *asked)
    assert status == 0, complaints
    sentence = f"nothing is validated: trainer.val_check_interval={every} is more than the 12 steps of the run."
    assert (sentence in said) == told
    assert said.count("nothing is validated") == told


@pytest.mark.parametrize(("prompts", "told"), [(["red"], "about 10 s"), ([], "its time is not in that")])
def test_the_forecast_counts_the_measurement_at_the_end(prompts, told):
    forecast = Forecast(folder="run", curriculum=Curriculum(), after_steps=5)
    forecast._end, forecast._seen = 100, [(step, step / 2) for step in range(1, 7)]
    grids = SampleGrid(folder="run", prompts=prompts, sampler=Euler(num_steps=1), every_n_steps=None)
    grids.took_s, grids.painted_at = 0.5, 0
    counted = CaptionFollowing(folder="run", source=Painter(), sampler=Euler(num_steps=1), count=16, held_out_count=4)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", max_steps=100, callbacks=[grids, counted], enable_checkpointing=False, **quiet)
    trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = 6
    said = forecast._told(trainer)
    assert re.search(rf"caption following of 20 pictures at the end, .*({told})", said), said
    assert said.startswith("about 58 s to go" if prompts else "about 47 s to go"), said
    counted.source = None
    assert "caption following" not in forecast._told(trainer)


@pytest.mark.slow
def test_a_run_that_grows_its_pictures_says_how_long_each_size_takes(tiny, run_here, tmp_path):
    arguments = ["curriculum=progressive", "trainer.max_steps=16", "callbacks.forecast.after_steps=5", "run=grows"]
    status, said, complaints = run_here("train", *tiny, *arguments)
    assert status == 0, said + complaints
    first, second = re.findall(r"^about .* of [\d.e-]+ s.*", said, re.MULTILINE)
    assert re.fullmatch(
        r"about \d+ s to step 8: 2 steps of \S+ s\. Then pictures are larger, and steps take longer\.", first
    )
    assert re.fullmatch(r"about \d+ s to go: 3 steps of \S+ s", second)


def test_a_run_whose_pictures_are_not_known_to_be_the_painters_says_that_caption_following_is_not_measured(
    tmp_path, caplog
):
    callback = CaptionFollowing(folder=str(tmp_path), source=None, sampler=Euler(num_steps=1))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", max_steps=0, default_root_dir=tmp_path, enable_checkpointing=False, **quiet)
    with caplog.at_level("INFO"):
        callback.on_train_start(trainer, LightningModule())
        callback.on_train_end(trainer, LightningModule())
    assert "and these pictures are others" in caplog.text
    assert not list(tmp_path.glob("*.json"))


class _Falling(LightningModule):
    """Its loss is the mean of the pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return batch.images.mean() + 0 * self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_verdict_tells_the_loss_of_steps_and_not_of_their_parts(tmp_path, caplog):
    quieten()
    verdict = Verdict(window=2)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    kept = {"default_root_dir": tmp_path, "enable_checkpointing": False, "callbacks": [verdict]}
    trainer = Trainer(accelerator="cpu", max_epochs=1, accumulate_grad_batches=2, log_every_n_steps=1, **quiet, **kept)
    losses = (9.0, 7.0, 6.0, 6.0, 3.0, 1.0)
    batches: Any = [Batch(torch.full((1, 3, 1, 1), loss), [""], [""], [0], cursor=1) for loss in losses]
    with caplog.at_level("INFO"):
        trainer.fit(_Falling(), DataLoader(batches, batch_size=None))
    assert verdict.first == [8.0, 6.0]
    assert list(verdict.last) == [6.0, 2.0]
    assert "the loss was 8 in the first 1 steps, and 2 in the last: it fell by 75%" in caplog.text


def _going_on(folder: Path, ckpt_path: Path | None, *, step: int) -> Trainer:
    """A trainer as it is when a run goes on: all is loaded, and no step taken yet."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", default_root_dir=folder, enable_checkpointing=False, **quiet)
    trainer.ckpt_path = ckpt_path
    trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = step
    return trainer


@pytest.fixture
def left(tmp_path) -> Path:
    """A run of ten steps: checkpoints of five of them, the newest one a folder, and their sample grids."""
    for name in ("checkpoints", "samples"):
        (tmp_path / "run" / name).mkdir(parents=True)
    for step in (2, 5, 8, 9):
        (tmp_path / f"run/checkpoints/step_{step:08d}.ckpt").touch()
    (tmp_path / "run/checkpoints/step_00000010.ckpt").mkdir()
    (tmp_path / "run/checkpoints/step_00000010.ckpt/part").touch()
    (tmp_path / "run/checkpoints/last.ckpt").symlink_to("step_00000010.ckpt")
    (tmp_path / "run/checkpoints/best.ckpt").symlink_to("step_00000009.ckpt")
    for step in (0, 5, 10):
        for kind in ("png", "json"):
            (tmp_path / f"run/samples/step_{step:08d}.{kind}").touch()
    return tmp_path / "run"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_that_goes_back_leaves_no_checkpoints_and_grids_of_later_steps(left, caplog):
    saver = RunCheckpoints(folder=str(left / "checkpoints"))
    saver.load_state_dict({"best": [[0.5, "step_00000002.ckpt"]]})
    trainer = _going_on(left, left / "checkpoints/step_00000005.ckpt", step=5)
    with caplog.at_level("INFO"):
        saver.on_train_start(trainer, LightningModule())
        for grids in (
            SampleGrid(folder=str(left / "samples"), prompts=["red"], sampler=Euler(num_steps=1)),
            Reconstructions(folder=str(left)),
        ):
            grids.on_train_start(trainer, LightningModule())
    steps = ["step_00000002.ckpt", "step_00000005.ckpt"]
    assert _names(left / "checkpoints") == ["best.ckpt", "last.ckpt", *steps]
    assert (left / "checkpoints/last.ckpt").resolve().name == steps[1]
    assert (left / "checkpoints/best.ckpt").resolve().name == steps[0]
    assert sorted(grids_of(left)) == [0, 5]
    assert len(_names(left / "samples")) == 4
    assert "going on from step 5: 3 checkpoint(s) of later steps removed" in caplog.text
    assert caplog.text.count("going on from step 5: 1 sample grid(s) of later steps removed") == 1


def test_a_run_that_goes_on_from_elsewhere_or_at_its_end_removes_nothing(left, tmp_path):
    other = tmp_path / "other/checkpoints/step_00000005.ckpt"
    other.parent.mkdir(parents=True)
    other.touch()
    before = [_names(left / name) for name in ("checkpoints", "samples")]
    newest = (left / "checkpoints/last.ckpt").resolve()
    for checkpoint, step in ((other, 5), (newest, 10), (None, 0)):
        trainer = _going_on(left, checkpoint, step=step)
        RunCheckpoints(folder=str(left / "checkpoints")).on_train_start(trainer, LightningModule())
        Reconstructions(folder=str(left)).on_train_start(trainer, LightningModule())
    assert [_names(left / name) for name in ("checkpoints", "samples")] == before


def test_a_checkpoint_of_an_earlier_step_than_those_of_another_branch_is_the_newest(tmp_path):
    saver = RunCheckpoints(folder=str(tmp_path), keep_last=2)
    for step in (5, 6, 8, 9, 10):
        (tmp_path / f"step_{step:08d}.ckpt").touch()
    saver._saved = 6
    saver._prune()
    assert _names(tmp_path) == ["step_00000005.ckpt", "step_00000006.ckpt"]


@pytest.mark.slow
def test_a_run_that_goes_back_keeps_what_it_saves_then(tiny, run_here, tmp_path):
    words = [*tiny, "run=back", "alignment=none", "callbacks.loss_plot=null", "trainer.val_check_interval=0"]
    words += ["data.url=shards", "lr_schedule=constant"]
    every = ["trainer.max_steps=6", "callbacks.checkpoints.every_n_steps=1"]
    assert run_here("train", *words, *every, "callbacks.checkpoints.keep_last=-1")[0] == 0
    folder = tmp_path / "logs/tiny/back/checkpoints"
    back = [f"ckpt_path={folder}/step_00000002.ckpt", "trainer.max_steps=3", "callbacks.checkpoints.keep_last=2"]
    status, _, complaints = run_here("train", *words, *back, "data.global_batch_size=4")
    assert status == 1
    assert "data.global_batch_size=8" in complaints
    assert len(list(folder.glob("step_*"))) == 6  # no run started
    status, said, complaints = run_here("train", *words, *back)
    assert status == 0, said + complaints
    assert "going on from step 2: 4 checkpoint(s) of later steps removed" in said
    assert _names(folder) == ["last.ckpt", "step_00000002.ckpt", "step_00000003.ckpt"]
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 3
    assert pd.read_csv(folder.parent / "metrics.csv")["step"].tolist() == [0, 1, 2]


def test_a_validation_that_is_not_finite_is_never_the_best(tmp_path):
    saver = RunCheckpoints(folder=str(tmp_path), keep_best=2)
    values = {"a": math.nan, "b": 0.5, "c": math.inf, "d": 0.25, "e": math.nan}
    assert [saver._among_the_best(value, name) for name, value in values.items()] == [False, True, False, True, False]
    for name in values:
        (tmp_path / name).touch()
    assert saver.best == [(0.25, "d"), (0.5, "b")]
    again = RunCheckpoints(folder=str(tmp_path))
    again.load_state_dict({"best": [[math.nan, "a"], [0.25, "d"], [math.inf, "c"]]})  # as it was saved before
    assert again.best == [(0.25, "d")]


def test_rows_of_the_steps_that_a_run_takes_again_go(tmp_path):
    before, again = (RunCSVLogger(folder=str(tmp_path), flush_every_n=1) for _ in range(2))
    for step in range(6):
        before.log_metrics({"loss": 1.0}, step=step)
    trainer = _going_on(tmp_path, tmp_path / "checkpoints/step_00000003.ckpt", step=3)
    trainer.loggers = [again]
    Cursor().on_train_start(trainer, LightningModule())
    again.log_metrics({"loss": 2.0}, step=5)
    assert pd.read_csv(tmp_path / "metrics.csv")["step"].tolist() == [0, 1, 2, 5]


def test_config_yaml_reads_back_equal(tmp_path):
    module: Any = LightningModule()
    module.config = {"name": "n", "prompts": ["costs ${five}", "a \\${b}", "${oc.env:HOME}", "${", "plain \\$"]}
    RunReport(folder=str(tmp_path)).on_fit_start(_going_on(tmp_path, None, step=0), module)
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml"), resolve=True) == module.config
