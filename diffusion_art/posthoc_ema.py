"""Averages of any length, after the run: `python -m diffusion_art.posthoc_ema run=logs/wikiart 'sigma_rel=[0.1,0.15]'`.

Writes `checkpoints/posthoc_0.15.ckpt` for each width, which sample, evaluate and serve take like any checkpoint.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("paint")

import logging
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from diffusion_art.checkpoints import POSTHOC, find_run
from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.errors import UserError
from diffusion_art.files import written
from diffusion_art.record import Record
from diffusion_art.runs import load_run
from diffusion_art.training.ema import width_name
from diffusion_art.training.posthoc import Snapshot, add_up, find_snapshots, mix
from diffusion_art.training.power_profile import Mixture
from diffusion_art.training.provenance import provenance

log = logging.getLogger(__name__)

POOR = 0.02  # share of the profile missed, above which the average is not what its name says


def posthoc_ema(config: DictConfig) -> list[Path]:
    """Returns the checkpoints it wrote, in the order of the widths."""
    asked = plain(config)
    run = find_run(asked["run"])
    trained = load_run(run).record
    widths = asked["sigma_rel"] if isinstance(asked["sigma_rel"], list) else [asked["sigma_rel"]]
    widths = [_width(width) for width in widths]
    snapshots = up_to(find_snapshots(run / "snapshots"), asked["step"], run=run)
    mixtures = [mix(snapshots, sigma_rel=width) for width in widths]
    written = []
    for width, mixture, weights in zip(widths, mixtures, add_up(snapshots, mixtures)):
        if unfit := weights.keys() ^ trained.ema.keys():
            raise UserError(f"the snapshots of {run} belong to another model: {sorted(unfit)[:3]} ... do not fit.")
        at = "" if asked["step"] is None else f"_at_{snapshots[-1].step}"
        path = run / "checkpoints" / f"{POSTHOC}{width:.10g}{at}.ckpt"
        _write(path, trained, weights, width=width, snapshots=snapshots, mixture=mixture)
        _tell(path, width=width, snapshots=snapshots, mixture=mixture)
        written.append(path)
    return written


def up_to(snapshots: list[Snapshot], step: int | None, *, run: Path) -> list[Snapshot]:
    """Those up to `step`, which has to be one of theirs: an average reaches to its last step.

    Raises:
        UserError: none at all, or none at that step.
    """
    if not snapshots:
        raise UserError(f"{run} has no snapshots: averages can be made afterwards of a run trained with ema=post_hoc.")
    steps = [snapshot.step for snapshot in snapshots]
    last = steps[-1] if step is None else step
    if last not in steps:
        nearest = min(steps, key=lambda there: abs(there - last))
        raise UserError(f"{run} has no snapshot of step {last}. Take a step it has one of, such as step={nearest}.")
    return snapshots[: steps.index(last) + 1]


def _width(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"sigma_rel={value} is not a number: give a width such as 0.1, or several.") from error


def _write(
    path: Path,
    trained: Record,
    weights: dict[str, torch.Tensor],
    *,
    width: float,
    snapshots: list[Snapshot],
    mixture: Mixture,
) -> None:
    record = Record(
        config=trained.config,
        text_encoder=trained.text_encoder,
        codec=trained.codec,
        ema=weights,
        ema_name=width_name(width),
        ema_updates=snapshots[-1].updates,
        step=snapshots[-1].step,
        more={"snapshots": [snapshot.step for snapshot in snapshots], "profile_error": mixture.error},
        **provenance(),
    )
    checkpoint: dict[str, Any] = {"state_dict": {}}
    record.write_to(checkpoint)
    with written(path) as partial:
        torch.save(checkpoint, partial)


def _tell(path: Path, *, width: float, snapshots: list[Snapshot], mixture: Mixture) -> None:
    count, missed = len(snapshots), 100 * mixture.error
    log.info("sigma_rel=%.10g from %d snapshots, profile off by %.2g %%: %s", width, count, missed, path)
    if mixture.error > POOR:
        log.warning(
            "WARNING: %d snapshots hold too little of this width: what was made is another average. Choose one nearer "
            "to those tracked, or write snapshots more often (callbacks.snapshots.every_n_steps).",
            count,
        )


main = command("posthoc_ema")(posthoc_ema)

if __name__ == "__main__":
    main()
