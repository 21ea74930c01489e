"""Pictures of the same captions and seeds at fixed steps: the film of a training run."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_art.callbacks.graceful_stop import was_stopped
from diffusion_art.diffusion.guidance import tempering
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.images import grid, to_pil, to_png
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.sizes import Size, named, nearest
from diffusion_art.training.processes.sharded import ShardedStrategy
from diffusion_art.training.run.limits import interval
from diffusion_art.training.run.resume import taken_again
from diffusion_art.training.run.trackers import show_pictures

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


def remove_later_grids(trainer: Trainer, folder: Path) -> None:
    """Remove the grids of steps that a run takes again as it goes on from an earlier one: they show another branch."""
    later = taken_again(trainer, folder, "step_*.png", checkpoints=folder.parent / "checkpoints")
    if not (later and trainer.is_global_zero):
        return
    for path in later:
        path.unlink()
        path.with_suffix(".json").unlink(missing_ok=True)
    log.info("going on from step %d: %d sample grid(s) of later steps removed", trainer.global_step, len(later))


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
        self.took_s = 0.0  # to paint and write it

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        remove_later_grids(trainer, self.folder)
        if trainer.global_step == 0:
            self.paint(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.is_due(trainer.global_step) and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.paint(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not was_stopped(trainer):  # who stopped the run wants to go
            self.paint(trainer, pl_module)

    def is_due(self, step: int) -> bool:
        return step in self.at_steps or bool(self.every_n_steps and step % self.every_n_steps == 0)

    def due_steps(self, first: int, last: int) -> list[int]:
        """The steps from `first` on with a grid that is not there yet, in a run of `last` steps."""
        steps = range(max(first, self.painted_at + 1), last + 1)
        return [step for step in steps if step == last or self.is_due(step)]

    def paint(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if not paints(trainer) or step == self.painted_at or not self.prompts:
            return
        self.painted_at, began = step, time.perf_counter()
        seeds = [self.seed + row for row in range(len(self.prompts))]
        model: Any = pl_module.model
        with painting(trainer, pl_module):
            if not trainer.is_global_zero:
                return
            images = self._painted(model, seeds)
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
        if model.sizes:
            asked["sizes"] = [named((image.shape[2], image.shape[1])) for image in images]
        (self.folder / f"{name}.json").write_text(json.dumps(asked, indent=1, ensure_ascii=False))
        pictures = [to_pil(image) for image in images]
        for logger in trainer.loggers:
            show_pictures(logger, sheet, pictures, self.prompts, step)
        self.took_s = time.perf_counter() - began
        log.info("step %d: samples in %s", step, path)

    def _painted(self, model: TextToImage, seeds: list[int]) -> list[Float[Tensor, "3 _h _w"]]:
        """A picture for each prompt. A model of several sizes paints them square, standing and lying in turn."""
        shapes = shown_sizes(model.sizes)
        images: list[Any] = [None] * len(seeds)
        for first, size in enumerate(shapes):
            rows = range(first, len(seeds), len(shapes))
            found = (
                model.generate(
                    [self.prompts[row] for row in rows],
                    seeds=[seeds[row] for row in rows],
                    sampler=self.sampler,
                    guidance_scale=self.guidance_scale,
                    **self.guidance,
                    size=size,
                    batch_size=self.batch_size,
                )
                if rows
                else []
            )
            for row, image in zip(rows, found, strict=True):
                images[row] = image
        return images


def shown_sizes(sizes: Sequence[Size]) -> list[Size | None]:
    """The square, and the sizes nearest to 3:4 and 4:3; None for the square of a model that has no other."""
    if not sizes:
        return [None]
    square = next(size for size in sizes if size[0] == size[1])
    return list(dict.fromkeys([square, nearest(3, 4, sizes), nearest(4, 3, sizes)]))
