"""A model to hand on: `python -m diffusion_art.export run=logs/quickstart`.

Writes one safetensors file that sample, serve, evaluate and `load_run` take like a run: the weights that painting uses
and the config that builds their network. A checkpoint is several times as large, for it can be trained on.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from omegaconf import DictConfig

from diffusion_art.checkpoints import KEY, checkpoint_id, find_checkpoint, find_run, read_checkpoint, weights_of
from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.errors import UserError
from diffusion_art.exported import SUFFIX, write_exported

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export(config: DictConfig) -> Path:
    """Returns the file it wrote."""
    asked = plain(config)
    if asked["dtype"] not in DTYPES:
        raise UserError(f"dtype={asked['dtype']} is none of {', '.join(DTYPES)}.")
    given = Path(asked["run"])
    found = given if given.is_file() else find_checkpoint(find_run(given), which=asked["checkpoint"])
    checkpoint = read_checkpoint(found)
    chosen = weights_of(checkpoint, asked["weights"], origin=found)
    tensors = {
        name: value.to(DTYPES[asked["dtype"]]) if value.is_floating_point() else value for name, value in chosen.items()
    }
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise UserError(f"{name} of {found} is not finite in {asked['dtype']}: export it with dtype=float32.")
    path = Path(asked["path"]) if asked["path"] else _beside(found)
    if path.suffix != SUFFIX:
        raise UserError(f"path={path} must end in {SUFFIX}.")
    if path.resolve() == found.resolve():
        raise UserError(f"path={path} is the file to export from: give another.")
    source = checkpoint_id(found) + ("" if asked["dtype"] == "float32" else f"-{asked['dtype']}")
    write_exported(path, checkpoint[KEY], tensors, weights=asked["weights"], checkpoint=source)
    count = sum(value.numel() for value in tensors.values())
    log.info("%.1f M weights, %.1f MB: %s", count / 1e6, path.stat().st_size / 1e6, path)
    log.info("paint with it: python -m diffusion_art.sample run=%s", path)
    return path


def _beside(checkpoint: Path) -> Path:
    """In the checkpoint's run folder, by the run's name and the checkpoint's."""
    real = checkpoint.resolve()
    if real.parent.name != "checkpoints":
        return checkpoint.with_suffix(SUFFIX)
    return checkpoint.parent.parent / f"{checkpoint.parent.parent.resolve().name}_{real.stem}{SUFFIX}"


main = command("export")(export)

if __name__ == "__main__":
    main()
