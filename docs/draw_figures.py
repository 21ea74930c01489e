"""The figures of `docs/concepts.md`, drawn by the code that they explain: `python docs/draw_figures.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from diffusion_art.diffusion.denoiser import X0, Epsilon, Flow, V
from diffusion_art.diffusion.schedules import CosineSchedule, LinearBeta, Schedule
from diffusion_art.diffusion.schedules import Flow as FlowSchedule
from diffusion_art.shards.order import EpochOrder
from diffusion_art.training.averages.power_profile import gamma_of

OUT = Path(__file__).parent / "figures"
SCHEDULES: dict[str, Schedule] = {
    "flow": FlowSchedule(),
    "flow, shift 2": FlowSchedule(shift=2.0),
    "cosine": CosineSchedule(),
    "linear_beta": LinearBeta(),
}


def schedules() -> Figure:
    """log SNR and the share of noise of each schedule."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    t = torch.linspace(0.002, 0.998, 400, dtype=torch.float64)
    for name, schedule in SCHEDULES.items():
        left.plot(t, schedule.log_snr(t), label=name)
        alpha, sigma = schedule.alpha_sigma(t)
        right.plot(t, sigma / (alpha + sigma), label=name)
    left.set(xlabel="t", ylabel="log SNR", ylim=(-12, 12))
    right.set(xlabel="t", ylabel="sigma / (alpha + sigma)")
    left.legend(frameon=False)
    return figure


def predictions() -> Figure:
    """What an error of the network's output means for x_0, along the flow schedule."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    t = torch.linspace(0.002, 0.95, 400, dtype=torch.float64)
    alpha, sigma = FlowSchedule().alpha_sigma(t)
    for name, prediction in {"epsilon": Epsilon(), "v": V(), "x0": X0(), "flow": Flow()}.items():
        axes.plot(t, prediction.x0_error_scale(alpha, sigma), label=name)
    axes.set(xlabel="t, flow schedule", ylabel="error in x_0 per error of output", ylim=(0, 4))
    axes.legend(frameon=False)
    return figure


def order() -> Figure:
    """Two epochs of 64 samples: place across, sample up."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    for epoch, axes in enumerate(figure.subplots(1, 2, sharey=True)):
        found = EpochOrder(64, seed=0, epoch=epoch, split="train", digest="0" * 32)(np.arange(64))
        axes.scatter(np.arange(64), found, s=9, c=np.arange(64) // 16, cmap="tab10", vmax=9)
        axes.set(xlabel=f"place in epoch {epoch}; a colour is a global batch of 16")
    figure.axes[0].set(ylabel="sample")
    return figure


def averages() -> Figure:
    """The weight that an average gives to each update of a run of 1,000."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, 1001)
    for decay in (0.99, 0.998):
        axes.plot(steps, (1 - decay) * decay ** (1000 - steps), label=f"decay {decay}")
    for width in (0.05, 0.15):
        gamma = gamma_of(width)
        axes.plot(steps, (gamma + 1) * (steps / 1000) ** gamma / 1000, "--", label=f"sigma_rel {width}")
    axes.set(xlabel="update", ylabel="weight")
    axes.legend(frameon=False)
    return figure


def main() -> None:
    OUT.mkdir(exist_ok=True)
    for draw in (schedules, predictions, order, averages):
        draw().savefig(OUT / f"{draw.__name__}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
