"""A model to hand on: `python -m diffusion_art.export run=logs/quickstart`.

Writes one safetensors file that sample, serve, evaluate and `load_run` take like a run: the weights that painting uses
and the config that builds their network. A checkpoint is several times as large, for it can be trained on.

With `format=diffusers` it writes the UNet alone, as a folder that diffusers' `UNet2DConditionModel.from_pretrained`
reads; `UNet.as_diffusers` says how it is called.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("paint")

import logging
from pathlib import Path

import torch
from omegaconf import DictConfig

from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.errors import UserError
from diffusion_art.exported import SUFFIX, write_exported
from diffusion_art.models.unet import UNet
from diffusion_art.runs import Run, load_run

log = logging.getLogger(__name__)

FORMATS = ("file", "diffusers")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export(config: DictConfig) -> Path:
    """Returns the file or folder it wrote."""
    asked = plain(config)
    for name, choices in (("dtype", DTYPES), ("format", FORMATS)):
        if asked[name] not in choices:
            raise UserError(f"{name}={asked[name]} is none of {', '.join(choices)}.")
    run = load_run(asked["run"], which=asked["checkpoint"], weights=asked["weights"])
    found = run.checkpoint
    dtype = DTYPES[asked["dtype"]]
    tensors = {name: value.to(dtype) if value.is_floating_point() else value for name, value in run.tensors.items()}
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise UserError(f"{name} of {found} is not finite in {asked['dtype']}: export it with dtype=float32.")
    if asked["format"] == "diffusers":
        return _write_unet(Path(asked["path"] or _beside(found)), run, dtype)
    path = Path(asked["path"] or f"{_beside(found)}{SUFFIX}")
    if path.suffix != SUFFIX:
        raise UserError(f"path={path} must end in {SUFFIX}.")
    if path.resolve() == found.resolve():
        raise UserError(f"path={path} is the file to export from: give another.")
    source = run.checkpoint_id + ("" if asked["dtype"] == "float32" else f"-{asked['dtype']}")
    write_exported(path, run.record, tensors, weights=run.weights, checkpoint=source)
    count = sum(value.numel() for value in tensors.values())
    log.info("%.1f M weights, %.1f MB: %s", count / 1e6, path.stat().st_size / 1e6, path)
    log.info("paint with it: python -m diffusion_art.sample run=%s", path)
    return path


def _write_unet(path: Path, run: Run, dtype: torch.dtype) -> Path:
    """The backbone as diffusers' own network, in a folder as diffusers writes one."""
    backbone = run.model.backbone
    if not isinstance(backbone, UNet):
        raise UserError(
            f"{run.checkpoint} has a {type(backbone).__name__}, and diffusers has none: export it with format=file."
        )
    former = (path / "diffusion_pytorch_model.safetensors").is_file()
    if path.exists() and not former and (path.is_file() or any(path.iterdir())):
        raise UserError(f"path={path} holds something else: give a folder of its own.")
    net = backbone.as_diffusers()
    torch.nn.Module.to(net, dtype)  # diffusers' own has no types
    net.save_pretrained(path)
    log.info("the UNet, %.1f M weights: %s", net.num_parameters() / 1e6, path)
    log.info("read it: diffusers.UNet2DConditionModel.from_pretrained(%r)", str(path))
    return path


def _beside(checkpoint: Path) -> Path:
    """In the checkpoint's run folder, by the run's name and the checkpoint's."""
    real = checkpoint.resolve()
    if real.parent.name != "checkpoints":
        return checkpoint.with_suffix("")
    return checkpoint.parent.parent / f"{checkpoint.parent.parent.resolve().name}_{real.stem}"


main = command("export")(export)

if __name__ == "__main__":
    main()
