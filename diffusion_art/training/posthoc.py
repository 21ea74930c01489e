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

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diffusion_art.devices import DTYPES
from diffusion_art.errors import UserError
from diffusion_art.files import save_tensors
from diffusion_art.training.power_profile import Mixture, gamma_of, reconstruct

log = logging.getLogger(__name__)

PRECISIONS = ("fp16", "fp32")  # of a snapshot


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
