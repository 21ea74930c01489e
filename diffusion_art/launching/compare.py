"""The last line of a multi-run: what compares its runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from diffusion_art.checkpoints import has_checkpoints
from diffusion_art.files import command_line

log = logging.getLogger(__name__)


class CompareRuns(Callback):
    """Hydra calls it when all jobs have ended and none has failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if said := comparison(Path(str(config.hydra.sweep.dir))):
            log.info("%s", said)


def comparison(folder: Path) -> str | None:
    """What compares the runs in the folder of a multi-run; None where fewer than two saved anything."""
    if (report := folder / "report.md").is_file():
        return f"the trials are compared in {report}; all curves: {command_line('watch', [f'logs={folder}'])}"
    runs = [run for run in folder.iterdir() if has_checkpoints(run)] if folder.is_dir() else []
    if len(runs) < 2:
        return None
    named = ",".join(str(run) for run in sorted(runs, key=lambda run: (len(run.name), run.name)))
    evaluate = command_line("evaluate", [f"run=[{named}]", "metrics=[kid,val_x0]"])
    return f"compare them: {evaluate}; their curves: {command_line('watch', [f'logs={folder}'])}"
