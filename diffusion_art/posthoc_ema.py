"""Averages of any length, after the run: `python -m diffusion_art.posthoc_ema run=logs/wikiart 'sigma_rel=[0.1,0.15]'`.

Writes `checkpoints/posthoc_0.15.ckpt` for each width, which sample, evaluate and serve take like any checkpoint.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("paint")

from pathlib import Path

from omegaconf import DictConfig

from diffusion_art.checkpoints import find_run
from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.runs import load_run
from diffusion_art.training.averages.posthoc import widths_of, write_averages


def posthoc_ema(config: DictConfig) -> list[Path]:
    """Returns the checkpoints it wrote, in the order of the widths."""
    asked = plain(config)
    run = find_run(asked["run"])
    trained = load_run(run).record
    return write_averages(run, trained, widths=widths_of(asked["sigma_rel"]), step=asked["step"])


main = command("posthoc_ema")(posthoc_ema)

if __name__ == "__main__":
    main()
