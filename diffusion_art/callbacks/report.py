"""`report.md` and `report.html`: what a run was and what came of it, readable without any tool."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_art.callbacks.graceful_stop import was_stopped
from diffusion_art.files import command_line
from diffusion_art.reports.training import TrainingReport

log = logging.getLogger(__name__)

Rows = list[tuple[str, Any]]


class RunReport(Callback):
    """Writes `report.html` at each sample grid, and both reports at the end.

    With several processes the first one writes. A page that cannot be written is told in the log, and the run goes on.
    """

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)
        self._page = TrainingReport(self.folder)
        self._began = 0.0
        self._first_step = 0
        self._grid_shown = -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first_step = trainer.global_step  # that of the checkpoint, if the run was resumed
        self._show_new_grid(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._show_new_grid(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.is_global_zero and self._began:
            self._show(trainer, pl_module, "failed")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.is_global_zero and stage == "fit" and self._began:
            (self.folder / "report.md").write_text(self.text(trainer, pl_module))
            self._show(trainer, pl_module, "stopped" if was_stopped(trainer) else "finished")

    # ------------------------------------------------------------------ report.html

    def _show_new_grid(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks: list[Callback] = getattr(trainer, "callbacks", [])
        painted = max((getattr(one, "painted_at", -1) for one in callbacks), default=-1)
        if painted > self._grid_shown and trainer.is_global_zero:
            self._grid_shown = painted
            self._show(trainer, pl_module, "running")

    def _show(self, trainer: Trainer, pl_module: LightningModule, state: str) -> None:
        for logger in trainer.loggers:
            logger.save()
        written = time.strftime("%Y-%m-%d %H:%M")
        told = f"{state} at step {trainer.global_step:,} of {trainer.max_steps:,}, written {written}"
        try:
            self._page.write(
                self.title(pl_module),
                command=_command(),
                about=self.about(trainer, pl_module),
                state=told,
            )
        except OSError as error:
            log.warning("report.html could not be written: %s", error)

    # ------------------------------------------------------------------ report.md

    def text(self, trainer: Trainer, pl_module: LightningModule) -> str:
        lines = [
            f"# {self.title(pl_module)}",
            "",
            f"    {_command()}",
            "",
            "| | |",
            "|---|---|",
        ]
        rows = self.about(trainer, pl_module) + self._figures(trainer)
        lines += [f"| {name} | {value} |" for name, value in rows]
        grids = sorted((self.folder / "samples").glob("step_*.png"))
        if (self.folder / "loss.png").exists():
            lines += ["", "![loss](loss.png)"]
        if grids:
            lines += ["", f"![samples](samples/{grids[-1].name})"]
        return "\n".join(lines) + "\n"

    def title(self, pl_module: LightningModule) -> str:
        module: Any = pl_module
        return f"{module.config.get('name', 'run')} / {self.folder.name}"

    def about(self, trainer: Trainer, pl_module: LightningModule) -> Rows:
        """What was run, and on what."""
        seconds = time.perf_counter() - self._began
        module: Any = pl_module
        versions = module.provenance.get("versions", {})
        rows: Rows = [
            ("steps", f"{trainer.global_step:,} (this session {trainer.global_step - self._first_step:,})"),
            ("minutes", f"{seconds / 60:.1f}"),
            ("parameters trained", f"{sum(p.numel() for p in module.parameters() if p.requires_grad):,}"),
            ("device", f"{module.device}, {trainer.world_size} process(es), {trainer.precision}"),
            ("commit", module.provenance.get("commit") or "unknown"),
            ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
        ]
        data: Any = getattr(trainer, "datamodule", None)
        if without := getattr(data, "without_caption", None):
            rows.append(("pictures without a caption", f"{without:,} of {sum(data.info.splits.values()):,}"))
        return rows

    def _figures(self, trainer: Trainer) -> Rows:
        metrics = trainer.callback_metrics
        names = ("train/loss", "val/loss", "time/images_per_s", "time/data_wait_share")
        rows: Rows = [(name, f"{float(metrics[name]):.4g}") for name in names if name in metrics]
        following = self.folder / "caption_following.json"
        if following.exists():
            for name, value in json.loads(following.read_text()).items():
                if isinstance(value, int | float):
                    rows.append((f"caption following, {name}", f"{value:.4g}"))
        return rows


def _command() -> str:
    return command_line("train", sys.argv[1:])
