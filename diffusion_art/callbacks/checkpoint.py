"""When to write checkpoints, which to keep, and names that can be found again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

log = logging.getLogger(__name__)


class RunCheckpoints(Checkpoint):
    """`step_00001000.ckpt` every `every_n_steps`, `last.ckpt` for the newest, `best.ckpt` for the lowest `monitor`.

    The `keep_last` newest and the `keep_best` best are kept (-1 keeps all). `last.ckpt` and `best.ckpt` are links.
    Lightning writes each file under another name and renames it when whole, and the links are replaced in one
    step, so a
    kill at any moment leaves a run that can be resumed.
    """

    def __init__(
        self,
        *,
        folder: str,
        every_n_steps: int = 1000,
        keep_last: int = 3,
        keep_best: int = 1,
        monitor: str = "val/loss",
    ) -> None:
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.monitor = monitor
        self.best: list[tuple[float, str]] = []  # (value, file name), lowest first

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and step > 0 and step % self.every_n_steps == 0:
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or value is None or self.keep_best == 0 or not trainer.fit_loop.epoch_loop:
            return
        beaten = 0 < self.keep_best <= len(self.best) and float(value) >= self.best[-1][0]
        if beaten or trainer.global_step == 0:
            return
        name = _name(trainer.global_step)
        self.best = sorted([*(entry for entry in self.best if entry[1] != name), (float(value), name)])
        if self.keep_best > 0:
            self.best = self.best[: self.keep_best]
        self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step > 0:
            self.save(trainer)

    def save(self, trainer: Trainer) -> Path:
        """Write this step's checkpoint (on every rank: it is a collective) and tidy up."""
        path = self.folder / _name(trainer.global_step)
        trainer.save_checkpoint(path, weights_only=False)
        if trainer.is_global_zero:
            _link(self.folder / "last.ckpt", path.name)
            if self.best:
                _link(self.folder / "best.ckpt", self.best[0][1])
            self._prune()
        return path

    def _prune(self) -> None:
        if self.keep_last < 0:
            return
        keep = {name for _, name in self.best}
        steps = sorted(self.folder.glob("step_*.ckpt"))
        for path in steps[: len(steps) - max(1, self.keep_last)]:
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        return {"best": [list(entry) for entry in self.best]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        found = [(float(value), str(name)) for value, name in state_dict["best"]]
        self.best = [entry for entry in found if (self.folder / entry[1]).exists()]


def _name(step: int) -> str:
    return f"step_{step:08d}.ckpt"


def _link(link: Path, target: str) -> None:
    """Point `link` at its neighbour `target`, replacing what it was in one step."""
    fresh = link.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
