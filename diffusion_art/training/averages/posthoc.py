"""Snapshots of power-function averages, and averages of any other length made of them when the run is over.

A snapshot is a safetensors file, `step_00001000.safetensors`: the weights of each average as `<average>/<parameter>`,
and in its metadata the step, the updates in the averages and their widths.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diffusion_art.checkpoints import POSTHOC
from diffusion_art.devices import DTYPES
from diffusion_art.errors import UserError
from diffusion_art.files import save_tensors, written
from diffusion_art.record import Record
from diffusion_art.training.averages.ema import width_name
from diffusion_art.training.averages.power_profile import Mixture, gamma_of, reconstruct
from diffusion_art.training.run.provenance import provenance

log = logging.getLogger(__name__)

PRECISIONS = ("fp16", "fp32")  # of a snapshot
POOR = 0.02  # share of the profile missed, above which the average is not what its name says


@dataclass(frozen=True)
class Snapshot:
    """A snapshot file, and which averages of how many updates it holds, by name with their widths."""

    path: Path
    step: int
    updates: int
    widths: dict[str, float]


def snapshot_path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}.safetensors"


def snapshot_step(path: Path) -> int:
    """The step in the name of a snapshot; -1 where it is none's."""
    found = re.fullmatch(r"step_(\d+)\.safetensors", path.name)
    return int(found[1]) if found else -1


def write_snapshot(
    folder: Path,
    averages: Mapping[str, Mapping[str, Tensor]],
    *,
    widths: Mapping[str, float],
    step: int,
    updates: int,
    dtype: str = "fp16",
) -> Path:
    """Write `averages`, those named in `widths`, under another name first, so that a kill leaves a whole file or none.

    Raises:
        UserError: a weight is not finite, or not in this dtype.
    """
    tensors = {
        f"{average}/{name}": value.detach().to("cpu", DTYPES[dtype], memory_format=torch.contiguous_format)
        for average in widths
        for name, value in averages[average].items()
    }
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise UserError(
                f"{name} is not finite in {dtype} at step {step}, so no snapshot was written. Resume an earlier "
                "checkpoint with a lower optim.lr, or write callbacks.snapshots.dtype=fp32."
            )
    folder.mkdir(parents=True, exist_ok=True)
    path = snapshot_path(folder, step)
    told = {"step": str(step), "updates": str(updates), "widths": json.dumps(dict(widths))}
    save_tensors(path, tensors, metadata=told)
    return path


def find_snapshots(folder: Path) -> list[Snapshot]:
    """The snapshots in `folder` by step; a file that cannot be read is passed over, and that is said."""
    found = []
    for path in sorted(folder.glob("step_*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                told = file.metadata() or {}
            widths = {str(name): float(width) for name, width in json.loads(told["widths"]).items()}
            found.append(Snapshot(path, step=int(told["step"]), updates=int(told["updates"]), widths=widths))
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            log.warning("%s cannot be read as a snapshot (%s) and is left out", path, error)
    return sorted(found, key=lambda snapshot: snapshot.step)


def mix(snapshots: Sequence[Snapshot], *, sigma_rel: float) -> Mixture:
    """The shares of all averages in `snapshots`, in order, that make the average of this width at the last of them."""
    columns = [(snapshot.updates, width) for snapshot in snapshots for width in snapshot.widths.values()]
    return reconstruct(
        torch.tensor([updates for updates, _ in columns], dtype=torch.float64),
        torch.tensor([gamma_of(width) for _, width in columns], dtype=torch.float64),
        step=snapshots[-1].updates,
        gamma=gamma_of(sigma_rel),
    )


def add_up(snapshots: Sequence[Snapshot], mixtures: Sequence[Mixture]) -> list[dict[str, Tensor]]:
    """The weights of each mixture, in float32. Each file is read once; one parameter at a time is held in float64.

    Raises:
        UserError: the snapshots do not hold the same parameters.
    """
    sums: list[dict[str, Tensor]] = [{} for _ in mixtures]
    columns = [(index, average) for index, snapshot in enumerate(snapshots) for average in snapshot.widths]
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(snapshot.path, framework="pt")) for snapshot in snapshots]
        keys = [set(file.keys()) for file in files]
        names = sorted({key.partition("/")[2] for key in keys[-1]})
        for (index, average), name in ((column, name) for column in columns for name in names):
            if f"{average}/{name}" not in keys[index]:
                raise UserError(f"{snapshots[index].path} has no {name}: it belongs to another model. Move it away.")
        for name in names:
            totals: list[Tensor | float] = [0.0 for _ in mixtures]
            for column, (index, average) in enumerate(columns):
                value = files[index].get_tensor(f"{average}/{name}").double()
                totals = [total + float(m.shares[column]) * value for total, m in zip(totals, mixtures)]
            for weights, total in zip(sums, totals):
                weights[name] = torch.as_tensor(total).float()
    return sums


# ---------------------------------------------------------------------- checkpoints of a run that is over


def write_averages(run: Path, trained: Record, *, widths: Sequence[float], step: int | None) -> list[Path]:
    """A checkpoint of the run for each width, with the average that ends at `step`, None for the last snapshot's.
    `trained` is what one of its checkpoints tells.

    Raises:
        UserError: the run has no snapshots, none at that step, or those of another model.
    """
    snapshots = up_to(find_snapshots(run / "snapshots"), step, run=run)
    mixtures = [mix(snapshots, sigma_rel=width) for width in widths]
    paths = []
    for width, mixture, weights in zip(widths, mixtures, add_up(snapshots, mixtures)):
        if unfit := weights.keys() ^ trained.ema.keys():
            raise UserError(f"the snapshots of {run} belong to another model: {sorted(unfit)[:3]} ... do not fit.")
        at = "" if step is None else f"_at_{snapshots[-1].step}"
        path = run / "checkpoints" / f"{POSTHOC}{width:.10g}{at}.ckpt"
        _write(path, trained, weights, width=width, snapshots=snapshots, mixture=mixture)
        _tell(path, width=width, snapshots=snapshots, mixture=mixture)
        paths.append(path)
    return paths


def widths_of(asked: Any) -> list[float]:
    """One width or a list of them, as numbers.

    Raises:
        UserError: one is not a number.
    """
    return [_width(width) for width in (asked if isinstance(asked, list) else [asked])]


def _width(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"sigma_rel={value} is not a number: give a width such as 0.1, or several.") from error


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


def _write(
    path: Path,
    trained: Record,
    weights: dict[str, Tensor],
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
    with written(path) as partial, partial.open("wb") as file:
        torch.save(checkpoint, file)


def _tell(path: Path, *, width: float, snapshots: list[Snapshot], mixture: Mixture) -> None:
    count, missed = len(snapshots), 100 * mixture.error
    log.info("sigma_rel=%.10g from %d snapshots, profile off by %.2g %%: %s", width, count, missed, path)
    if mixture.error > POOR:
        log.warning(
            "WARNING: %d snapshots hold too little of this width: what was made is another average. Choose one nearer "
            "to those tracked, or write snapshots more often (callbacks.snapshots.every_n_steps).",
            count,
        )
