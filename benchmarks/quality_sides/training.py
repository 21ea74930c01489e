"""One run of a recipe, stopped at its points to be measured, with what it cost until there."""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from diffusion_art.callbacks.checkpoint import RunCheckpoints
from diffusion_art.callbacks.sample_grid import painting
from diffusion_art.launching.fit import quieten
from diffusion_art.training.build import build_datamodule, build_module, build_trainer
from diffusion_art.training.run.resume import checked_resume
from quality_sides.recipes import Planned

COUNT_EVERY = 100  # steps between countings of FLOPs, which may change in a run
SAVE_EVERY = 100  # steps between checkpoints to go on from


class Points(Callback):
    """Adds up training's wall-clock, CPU seconds of all its processes and FLOPs, and measures at its points.

    Checkpoints and measuring are outside the time. FLOPs are those of a whole step, optimiser included, counted at
    the first step, every 100th and wherever pictures change size; not with `count_flops` false, since a compiled
    network shows none. All is kept in checkpoints.
    """

    def __init__(
        self,
        planned: Planned,
        *,
        saving: RunCheckpoints,
        measure: Callable[[Any], dict[str, Any]],
        count_flops: bool = True,
    ) -> None:
        self.steps = set(planned.steps)
        self.folder = planned.folder
        self.saving = saving
        self.measure = measure
        self.count_flops = count_flops
        self.spent = {"wall_s": 0.0, "cpu_s": 0.0, "flops": 0.0, "images": 0}
        self._flops_per_image = 0.0
        self._shape: tuple[int, ...] = ()
        self._counting: FlopCounterMode | None = None
        self._since: tuple[float, float] | None = None
        self.step_s: list[float] = []
        self.step_px: list[int] = []  # the longer side of each step's pictures

    def state_dict(self) -> dict[str, Any]:
        return dict(self.spent)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.spent = dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step in self.steps:
            self.take(trainer, pl_module)
        self._go()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        resized = tuple(batch.images.shape[1:]) != self._shape
        if self.count_flops and (resized or trainer.global_step % COUNT_EVERY == 0):
            self._shape = tuple(batch.images.shape[1:])
            self._counting = counter()
            self._counting.__enter__()
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.step_s.append(time.perf_counter() - self._began)
        self.step_px.append(max(batch.images.shape[-2:]))
        if self._counting is not None:
            self._counting.__exit__(None, None, None)
            self._flops_per_image = self._counting.get_total_flops() / len(batch)
            self._counting = None
            self.step_s.pop()
            self.step_px.pop()
        self.spent["images"] += len(batch)
        self.spent["flops"] += self._flops_per_image * len(batch)
        step, whole = trainer.global_step, (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if whole and (step in self.steps or step % SAVE_EVERY == 0):
            self._stop()
            self.saving.save(trainer)
            if step in self.steps:
                self.take(trainer, pl_module)
            self._go()

    def typical_step_s(self) -> float:
        """The mean over all steps of the median of those of their size."""
        by_px = defaultdict(list)
        for px, took in zip(self.step_px, self.step_s, strict=True):
            by_px[px].append(took)
        return sum(len(took) * statistics.median(took) for took in by_px.values()) / max(1, len(self.step_s))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._since is not None:
            self._stop()

    def take(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure this step's point, unless it is there."""
        path = point_file(self.folder, trainer.global_step)
        if path.exists():
            return
        began = time.process_time()
        with painting(trainer, pl_module):
            quality = self.measure(pl_module.model)
        cost = {"step": trainer.global_step, **self.spent, "step_s": self.typical_step_s()}
        half = path.with_suffix(".half")
        half.write_text(json.dumps({**cost, **quality, "measuring_cpu_s": time.process_time() - began}, indent=1))
        half.replace(path)

    def _go(self) -> None:
        self._since = time.perf_counter(), _cpu_s()

    def _stop(self) -> None:
        assert self._since is not None
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.spent["wall_s"] += time.perf_counter() - self._since[0]
        self.spent["cpu_s"] += max(0.0, _cpu_s() - self._since[1])
        self._since = None


def train(planned: Planned, measure: Callable[[Any], dict[str, Any]], *, count_flops: bool = True) -> None:
    """Train what is missing of a run, from its last checkpoint on. Returns when all its points are measured.

    SystemExit when it was told to stop before; the same command goes on from there.
    """
    if all(point_file(planned.folder, step).exists() for step in planned.steps):
        return
    quieten()
    planned.folder.mkdir(parents=True, exist_ok=True)
    module, points = fit(planned, measure, count_flops=count_flops)
    if module.trainer.global_step < planned.steps[-1]:
        raise SystemExit(f"stopped at step {module.trainer.global_step} of {planned.folder}; the same command goes on")
    points.take(module.trainer, module)  # where the last one was cut short: Lightning does not start a finished run


def fit(
    planned: Planned, measure: Callable[[Any], dict[str, Any]], *, count_flops: bool = True
) -> tuple[LightningModule, Points]:
    """Train from the last checkpoint there is, or from the seed."""
    settings = planned.settings
    seed_everything(settings["seed"], workers=False, verbose=False)  # initial weights
    checkpoint = checked_resume("auto", planned.folder)
    datamodule, module, trainer = build_datamodule(settings), build_module(settings), build_trainer(settings)
    saving = RunCheckpoints(folder=str(planned.folder / "checkpoints"), every_n_steps=10**9, keep_last=1, keep_best=0)
    points = Points(planned, saving=saving, measure=measure, count_flops=count_flops)
    trainer.callbacks += [points, saving]  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    return module, points


def counter() -> FlopCounterMode:
    """torch's counter, which passes over the CPU's attention, with that counted too."""
    aten: Any = torch.ops.aten

    def forward(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        return sdpa_backward_flop_count(grad, query, key, value)

    attention = aten._scaled_dot_product_flash_attention_for_cpu
    added = {attention: forward, aten._scaled_dot_product_flash_attention_for_cpu_backward: backward}
    return FlopCounterMode(display=False, custom_mapping=added)


def point_file(folder: Path, step: int) -> Path:
    return folder / f"point_{step:06d}.json"


def _cpu_s() -> float:
    """CPU seconds so far of this process and those it started."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
