"""When to write checkpoints, which to keep, and names that can be found again."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from diffusion_art.data.workers import LostWorker
from diffusion_art.files import written
from diffusion_art.training.run.limits import interval
from diffusion_art.training.run.resume import taken_again
from diffusion_art.units import counted

log = logging.getLogger(__name__)


class RunCheckpoints(Checkpoint):
    """`step_00001000.ckpt` every `every_n_steps` steps (0: never) and when training ends, however it does, `last.ckpt`
    for the newest, `best.ckpt` for the lowest `monitor`.

    The `keep_last` newest and the `keep_best` best are kept (-1 keeps all). `last.ckpt` and `best.ckpt` are links.
    Each file is written under another name beside it and renamed when whole, and the links are replaced in one step, so
    a kill at any moment leaves a run that can be resumed. A file of a step with a validation is written again after it.
    A run that goes on from one of its earlier files first removes those of the steps that it takes again.
    """

    def __init__(
        self,
        *,
        folder: str,
        every_n_steps: int | None = 1000,
        keep_last: int = 3,
        keep_best: int = 1,
        monitor: str = "val/loss",
    ) -> None:
        self.folder = Path(folder)
        self.every_n_steps = interval(every_n_steps)
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.monitor = monitor
        self.best: list[tuple[float, str]] = []  # (value, file name), lowest first
        self._saved = 0  # the step saved last
        self._told = False  # that `monitor` was not measured

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        later = taken_again(trainer, self.folder, "step_*.ckpt", checkpoints=self.folder)
        if not (later and trainer.is_global_zero):
            return
        self._link_newest(Path(str(trainer.ckpt_path)).resolve().name)
        for path in later:
            _remove(path)
        best = self.folder / "best.ckpt"
        if not best.exists():  # the best of the steps that go
            best.unlink(missing_ok=True)
        removed = counted(len(later), "checkpoint")
        log.info("going on from step %d: %s of later steps removed", trainer.global_step, removed)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches or step == 0:
            return
        ends = trainer.should_stop or step == trainer.max_steps
        if ends or (self.every_n_steps and step % self.every_n_steps == 0):
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value, step = trainer.callback_metrics.get(self.monitor), trainer.global_step
        if trainer.sanity_checking or step == 0:
            return
        if value is None and self.keep_best and not self._told and trainer.is_global_zero:
            measured = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            log.warning(
                "callbacks.checkpoints.monitor=%s is not among what a validation measured (%s): none is kept as best",
                self.monitor,
                measured,
            )
            self._told = True
        beaten = value is None or not self._among_the_best(float(value), _name(step))
        if not beaten or step == self._saved:  # a file written before the validation lacks what came of it
            self.save(trainer)

    def _among_the_best(self, value: float, name: str) -> bool:
        if not math.isfinite(value) or self.keep_best == 0:
            return False
        if 0 < self.keep_best <= len(self.best) and value >= self.best[-1][0]:
            return False
        self.best = sorted([*(entry for entry in self.best if entry[1] != name), (value, name)])
        if self.keep_best > 0:
            self.best = self.best[: self.keep_best]
        return True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training is over, for whatever reason."""
        if trainer.global_step not in (0, self._saved):
            self.save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """A lost worker is noticed between two batches, of training or of a validation."""
        if not isinstance(exception, LostWorker) or trainer.world_size > 1:  # saving takes all processes
            return
        between_steps = (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if between_steps and trainer.global_step not in (0, self._saved):
            module: Any = pl_module
            if module.leave_validation():  # the run that goes on makes it, as from a file written before it
                trainer.fit_loop.epoch_loop.batch_progress.total.completed -= 1
            self.save(trainer)

    def save(self, trainer: Trainer) -> Path:
        """Write this step's checkpoint (on every rank: it is a collective) and tidy up."""
        path = self.folder / _name(trainer.global_step)
        trainer.save_checkpoint(path, weights_only=False)
        self._saved = trainer.global_step
        if trainer.is_global_zero:
            self._link_newest(path.name)
            self._prune()
        return path

    def _link_newest(self, name: str) -> None:
        _link(self.folder / "last.ckpt", name)
        if self.best:
            _link(self.folder / "best.ckpt", self.best[0][1])

    def _prune(self) -> None:
        if self.keep_last < 0:
            return
        keep = {name for _, name in self.best}
        newest = _name(self._saved)  # steps after it are older: another branch took them
        steps = sorted(self.folder.glob("step_*.ckpt"), key=lambda path: (path.name <= newest, path.name))
        for path in steps[: max(0, len(steps) - max(1, self.keep_last))]:
            if path.name not in keep:
                _remove(path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": [list(entry) for entry in self.best]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        found = [(float(value), str(name)) for value, name in state_dict["best"]]
        self.best = [(value, name) for value, name in found if math.isfinite(value) and (self.folder / name).exists()]


def _name(step: int) -> str:
    return f"step_{step:08d}.ckpt"


def _remove(path: Path) -> None:
    """Delete a checkpoint: a file, or a folder that several processes wrote."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _link(link: Path, target: str) -> None:
    """Point `link` at its neighbour `target`, replacing what it was in one step."""
    with written(link) as partial:
        partial.unlink(missing_ok=True)
        partial.symlink_to(target)
