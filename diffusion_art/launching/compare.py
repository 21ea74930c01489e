"""The last line of a multi-run: what compares its runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from diffusion_art.checkpoints import find_checkpoint, has_checkpoints, read_plain
from diffusion_art.config import is_a
from diffusion_art.errors import UserError
from diffusion_art.files import command_line
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.record import Record

log = logging.getLogger(__name__)


class CompareRuns(Callback):
    """Hydra calls it when all jobs have ended and none has failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if said := comparison(Path(str(config.hydra.sweep.dir))):
            log.info("%s", said)


def comparison(folder: Path) -> str | None:
    """What compares the runs in the folder of a multi-run: by measures those that paint, by curves all; None where
    fewer than two saved anything.
    """
    if (report := folder / "report.md").is_file():
        return f"the trials are compared in {report}; all curves: {command_line('watch', [f'logs={folder}'])}"
    runs = [run for run in folder.iterdir() if has_checkpoints(run)] if folder.is_dir() else []
    if len(runs) < 2:
        return None
    curves = f"their curves: {command_line('watch', [f'logs={folder}'])}"
    painting = sorted(filter(_paints, runs), key=lambda run: (len(run.name), run.name))
    if len(painting) < 2:
        return curves
    named = ",".join(map(str, painting))
    return f"compare them: {command_line('evaluate', [f'run=[{named}]', 'metrics=[kid,val_x0]'])}; {curves}"


def _paints(run: Path) -> bool:
    """Whether a run trains what paints, and not an autoencoder or a CLIP. Of one that is not whole `evaluate` tells."""
    try:
        record = Record.of(read_plain(find_checkpoint(run)), origin=run)
    except UserError:
        return True
    return is_a(record.config["model"], TextToImage)
