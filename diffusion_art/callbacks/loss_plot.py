"""`loss.png`: training and validation loss over the steps, drawn from `metrics.csv`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_art.files import written


class LossPlot(Callback):
    """Draws the curve after every validation and at the end of training."""

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking and trainer.global_step > 0:
            self.draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.draw(trainer)

    def draw(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()
        metrics = self.folder / "metrics.csv"
        if metrics.exists():
            plot_losses(pd.read_csv(metrics), self.folder / "loss.png")


def plot_losses(metrics: pd.DataFrame, path: Path) -> None:
    """Loss against step as a PNG: every logged training loss faintly, its running mean, and the validation loss."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    train, val = (_logged(metrics, name) for name in ("train/loss", "val/loss"))
    if len(train):
        smooth = train["value"].ewm(span=max(2, len(train) // 20)).mean()
        axes.plot(train["step"], train["value"], color="#9db4c0", linewidth=0.8, label="train")
        axes.plot(train["step"], smooth, color="#1d3557", linewidth=1.8, label="train, running mean")
        axes.set_ylim(0, float(np.quantile(train["value"], 0.98)) * 1.15)
    if len(val):
        axes.plot(
            val["step"],
            val["value"],
            color="#e63946",
            marker="o",
            markersize=3,
            label="validation (averaged weights)",
        )
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.25)
    if axes.has_data():
        axes.legend(frameon=False)
    with written(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def _logged(metrics: pd.DataFrame, name: str) -> pd.DataFrame:
    """Columns `step` and `value` of one metric, where it was logged."""
    values = metrics[name] if name in metrics else pd.Series(dtype=float)
    return pd.DataFrame({"step": metrics["step"], "value": values}).dropna()
