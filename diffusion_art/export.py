"""A model to hand on: `python -m diffusion_art.export run=logs/quickstart`.

Writes one safetensors file that sample, serve, evaluate and `load_run` take like a run: the weights that painting uses
and the config that builds their network. A checkpoint is several times as large, for it can be trained on.

`format=diffusers` writes a folder that paints with diffusers alone, `format=onnx` one that paints with onnxruntime
(docs/sharing.md).
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("paint")

from pathlib import Path

from omegaconf import DictConfig

from diffusion_art.checkpoints import check_paints
from diffusion_art.cli import command
from diffusion_art.config import build, plain
from diffusion_art.devices import DTYPES, precision_named
from diffusion_art.errors import UserError
from diffusion_art.runs import load_run
from diffusion_art.sharing.formats import FORMATS, check_path

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


main = command("export")(export)

if __name__ == "__main__":
    main()
