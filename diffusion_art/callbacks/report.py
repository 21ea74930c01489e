"""`report.md`: what a run was and what came of it, readable without any tool."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

from diffusion_art.training.trackers import words_without_secrets


class RunReport(Callback):
    """Writes `config.yaml` when training starts and `report.md` when the run ends."""

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)
        self._began = 0.0
        self._first_step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            module: Any = pl_module
            (self.folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(module.config)))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first_step = trainer.global_step  # that of the checkpoint, if the run was resumed

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.is_global_zero and stage == "fit" and self._began:
            (self.folder / "report.md").write_text(self.text(trainer, pl_module))

    def text(self, trainer: Trainer, pl_module: LightningModule) -> str:
        seconds = time.perf_counter() - self._began
        module: Any = pl_module
        config, metrics = module.config, trainer.callback_metrics
        versions = module.provenance.get("versions", {})
        rows: list[tuple[str, Any]] = [
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
        for name in ("train/loss", "val/loss", "time/images_per_s", "time/data_wait_share"):
            if name in metrics:
                rows.append((name, f"{float(metrics[name]):.4g}"))
        following = self.folder / "caption_following.json"
        if following.exists():
            for name, value in json.loads(following.read_text()).items():
                if isinstance(value, int | float):
                    rows.append((f"caption following, {name}", f"{value:.4g}"))
        lines = [
            f"# {config.get('name', 'run')} / {self.folder.name}",
            "",
            f"    python -m diffusion_art.train {' '.join(words_without_secrets(sys.argv[1:]))}",
            "",
            "| | |",
            "|---|---|",
        ]
        lines += [f"| {name} | {value} |" for name, value in rows]
        grids = sorted((self.folder / "samples").glob("step_*.png"))
        if (self.folder / "loss.png").exists():
            lines += ["", "![loss](loss.png)"]
        if grids:
            lines += ["", f"![samples](samples/{grids[-1].name})"]
        return "\n".join(lines) + "\n"
