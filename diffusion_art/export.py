"""A model to hand on: `python -m diffusion_art.export run=logs/quickstart`.

Writes one safetensors file that sample, serve, evaluate and `load_run` take like a run: the weights that painting uses
and the config that builds their network. A checkpoint is several times as large, for it can be trained on.

`format=diffusers` writes a folder that paints with diffusers alone, `format=onnx` one that paints with onnxruntime
(docs/sharing.md).
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("paint")

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffusion_art.checkpoints import check_paints
from diffusion_art.cli import command
from diffusion_art.config import build, plain
from diffusion_art.devices import DTYPES, precision_named
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.errors import UserError
from diffusion_art.exported import SUFFIX, write_exported
from diffusion_art.extras import install_command, missing
from diffusion_art.runs import Run, load_run
from diffusion_art.sharing.painting import Painting, in_dtype

log = logging.getLogger(__name__)

NOT_COMFYUI = (
    "ComfyUI cannot run this model unchanged: of diffusers' UNets it loads those of Stable Diffusion's shapes, which "
    "work on a VAE's latents. Take format=diffusers, or serve the run, whose /sdapi/v1 front ends speak."
)


def export(config: DictConfig) -> Path:
    """Returns the file or folder it wrote."""
    asked = plain(config)
    asked["dtype"] = precision_named(asked["dtype"])
    if asked["format"] == "comfyui":
        raise UserError(NOT_COMFYUI)
    for name, choices in (("dtype", DTYPES), ("format", FORMATS)):
        if asked[name] not in choices:
            raise UserError(f"{name}={asked[name]} is not known: choose one of {', '.join(choices)}.")
    check_path(asked["format"], asked["path"])
    run = load_run(asked["run"], which=asked["checkpoint"], weights=asked["weights"])
    check_paints(run.record, run.checkpoint)
    chosen = build(asked["sampler"]) if asked.get("sampler") else None
    sampler = run.sampler(chosen, num_steps=asked["num_steps"])
    return FORMATS[asked["format"]](asked, run, sampler)


def export_file(asked: dict[str, Any], run: Run, sampler: Sampler) -> Path:
    """One file for the commands of this program."""
    found = run.checkpoint
    path = Path(asked["path"] or f"{_beside(found)}{SUFFIX}")
    if path.resolve() == found.resolve():
        raise UserError(f"path={path} is the file to export from: give another.")
    record = run.record
    tensors = in_dtype(run.tensors, DTYPES[asked["dtype"]], origin=found)
    if asked.get("sampler") or asked["num_steps"]:
        record = replace(record, config={**record.config, "sampler": sampler.describe()})
    source = run.checkpoint_id + ("" if asked["dtype"] == "fp32" else f"-{asked['dtype']}")
    write_exported(path, record, tensors, weights=run.weights, checkpoint=source)
    count = sum(value.numel() for value in tensors.values())
    log.info("%.1f M weights, %.1f MB: %s", count / 1e6, path.stat().st_size / 1e6, path)
    log.info("paint with it: python -m diffusion_art.sample run=%s", path)
    return path


def export_diffusers(asked: dict[str, Any], run: Run, sampler: Sampler) -> Path:
    """A folder for diffusers."""
    _check_installed("share", asked["format"])
    from diffusion_art.sharing.diffusers_folder import write_diffusers

    path = Path(asked["path"] or f"{_beside(run.checkpoint)}-diffusers")
    write_diffusers(path, Painting(run, sampler, DTYPES[asked["dtype"]]))
    log.info("a pipeline of diffusers: %s", path)
    log.info("paint with it: diffusers.DiffusionPipeline.from_pretrained(%r, trust_remote_code=True)", str(path))
    return path


def export_onnx(asked: dict[str, Any], run: Run, sampler: Sampler) -> Path:
    """A folder for onnxruntime."""
    _check_installed("onnx", asked["format"])
    from diffusion_art.sharing.onnx_folder import write_onnx

    path = Path(asked["path"] or f"{_beside(run.checkpoint)}-onnx")
    painting = Painting(run, sampler, DTYPES[asked["dtype"]])
    write_onnx(path, painting)
    log.info("two networks of ONNX and how to paint with them: %s", path)
    log.info("paint with it: python examples/onnx_paint.py %s '%s'", path, painting.prompts[0])
    return path


FORMATS: dict[str, Callable[[dict[str, Any], Run, Sampler], Path]] = {
    "file": export_file,
    "diffusers": export_diffusers,
    "onnx": export_onnx,
}


def check_path(form: str, path: str | None) -> None:
    """UserError where nothing of that format can be written."""
    if path is None:
        return
    place = Path(path)
    if form == "file" and place.suffix != SUFFIX:
        raise UserError(f"path={path} must end in {SUFFIX}.")
    if form == "file" and place.is_dir():
        raise UserError(f"path={path} is a folder: give the name of a file, such as path={place / 'model'}{SUFFIX}.")
    if form != "file" and place.is_file():
        raise UserError(f"path={path} is a file, and format={form} writes a folder: give another.")
    above = next(folder for folder in place.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"path={path} cannot be written: {above} is no folder that you may write to.")


def _check_installed(extra: str, form: str) -> None:
    if lacking := missing(extra):
        raise UserError(
            f"format={form} needs {', '.join(lacking)}, which is not installed. Install it: {install_command(extra)}"
        )


def _beside(checkpoint: Path) -> Path:
    """In the checkpoint's run folder, by the run's name and the checkpoint's."""
    real = checkpoint.resolve()
    if real.parent.name != "checkpoints":
        return checkpoint.with_suffix("")
    return checkpoint.parent.parent / f"{checkpoint.parent.parent.resolve().name}_{real.stem}"


main = command("export")(export)

if __name__ == "__main__":
    main()
