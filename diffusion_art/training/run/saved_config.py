"""`config.yaml`: the settings of a run, as they were settled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

from diffusion_art.config import verbatim


class SavedConfig(Callback):
    """Writes `config.yaml` into the run folder when training starts. With several processes the first one writes."""

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            module: Any = pl_module
            (self.folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(verbatim(module.config))))
