"""Pictures of the same captions and seeds at fixed steps: the film of a training run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_art.callbacks.graceful_stop import was_stopped
from diffusion_art.diffusion.guidance import tempering
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.images import grid, to_pil, to_png
from diffusion_art.training.limits import interval
from diffusion_art.training.sharded import ShardedStrategy
from diffusion_art.training.trackers import show_pictures

log = logging.getLogger(__name__)


@contextmanager
def painting(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Inside the block: averaged weights, eval mode, the run's precision. After it, all is as before, random
    state too. Where the processes of a run share its weights out, all of them have to enter.
    """
    module: Any = pl_module
    training = pl_module.training
    pl_module.eval()
    devices = [pl_module.device] if pl_module.device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            module.ema.averaged(),
            trainer.precision_plugin.forward_context(),
        ):
            yield
    finally:
        pl_module.train(training)


def paints(trainer: Trainer) -> bool:
    """Whether this process has to be there when the first one paints."""
    return trainer.is_global_zero or isinstance(trainer.strategy, ShardedStrategy)


class SampleGrid(Callback):
    """Writes `step_00001000.png` and, beside it, what was asked as `.json`, at step 0, every N steps, at
    listed ones and at the end, unless a signal ended the run.

    Uses the averaged weights, the same `prompts` and seeds (`seed`, `seed + 1`, ...) at each visit. Training is
    untouched: weights, train mode and random state are as they were. With several processes, the first one paints.
    """

    def __init__(
        self,
        *,
        folder: str,
        prompts: list[str],
        sampler: Sampler,
        guidance_scale: float = 1.0,
        guidance: dict[str, Any] | None = None,
        every_n_steps: int | None = 1000,
        at_steps: Sequence[int] = (),
        seed: int = 0,
        columns: int | None = None,
        batch_size: int = 16,
    ) -> None:
        self.folder = Path(folder)
        self.prompts = list(prompts)
        self.sampler = sampler
        self.guidance_scale = guidance_scale
        self.guidance = tempering(**(guidance or {}))
        self.every_n_steps = interval(every_n_steps)
        self.at_steps = set(at_steps)
        self.seed = seed
        self.columns = columns
        self.batch_size = batch_size
        self.painted_at = -1  # step of the newest grid

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:
            self.paint(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        due = step in self.at_steps or (self.every_n_steps and step % self.every_n_steps == 0)
        if due and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.paint(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not was_stopped(trainer):  # who stopped the run wants to go
            self.paint(trainer, pl_module)

    def paint(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if not paints(trainer) or step == self.painted_at or not self.prompts:
            return
        self.painted_at = step
        with painting(trainer, pl_module):
            if not trainer.is_global_zero:
                return
            images, seeds = self._painted(pl_module)
        self._keep(trainer, images, seeds)

    def _painted(self, pl_module: LightningModule) -> tuple[Tensor, list[int]]:
        seeds = [self.seed + row for row in range(len(self.prompts))]
        model: Any = pl_module.model
        images = model.generate(
            self.prompts,
            seeds=seeds,
            sampler=self.sampler,
            guidance_scale=self.guidance_scale,
            **self.guidance,
            batch_size=self.batch_size,
        )
        return images, seeds

    def _keep(self, trainer: Trainer, images: Tensor, seeds: list[int]) -> None:
        step = self.painted_at
        name = f"step_{step:08d}"
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.png"
        sheet = grid(images, self.prompts, columns=self.columns, title=f"step {step:,}")
        to_png(sheet, path, {"captions": self.prompts})
        asked = {
            "step": step,
            "prompts": self.prompts,
            "seeds": seeds,
            "guidance_scale": self.guidance_scale,
            "guidance": self.guidance,
            "sampler": self.sampler.describe(),
            "weights": "ema",
        }
        (self.folder / f"{name}.json").write_text(json.dumps(asked, indent=1, ensure_ascii=False))
        pictures = [to_pil(image) for image in images]
        for logger in trainer.loggers:
            show_pictures(logger, sheet, pictures, self.prompts, step)
        log.info("step %d: samples in %s", step, path)
