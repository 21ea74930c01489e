"""Models to hand on: one safetensors file each, with all that painting needs and nothing else.

The tensors are the trainable weights by name, in the precision that they were written in. The file's metadata holds,
under `diffusion_art`, a JSON object like that part of a checkpoint (`checkpoints.py`): format, config, step, versions,
commit, text_encoder, and

    weights         which of the checkpoint's weights these are, such as ema
    checkpoint      the id of the checkpoint that they are from

The optimiser's state, other averages, and of the config where things lay on the machine that trained are left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from diffusion_art.errors import UserError
from diffusion_art.files import save_tensors
from diffusion_art.record import KEY, Record

SUFFIX = ".safetensors"
TOLD = ("model", "sampler", "guidance_scale", "guidance", "prompts", "name", "data")  # of the config
PLACES = ("path", "url", "token", "ca", "cache")  # of the config's data: another machine has its own


def write_exported(
    path: Path, record: Record, tensors: dict[str, torch.Tensor], *, weights: str, checkpoint: str
) -> None:
    """Write a model; `record` is that of its checkpoint. A file that is there is replaced."""
    config = {name: value for name, value in record.config.items() if name in TOLD}
    if config.get("data"):
        config["data"] = {name: value for name, value in config["data"].items() if name not in PLACES}
    about = record.plain()
    kept = {name: about[name] for name in ("format", "step", "versions", "commit", "text_encoder") if name in about}
    told = json.dumps({**kept, "config": config, "weights": weights, "checkpoint": checkpoint})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, tensors, metadata={"format": "pt", KEY: told})


def read_exported(path: Path) -> dict[str, Any]:
    """A model's file as a checkpoint reads, its weights as the averaged ones.

    Raises:
        UserError: truncated, or another program's.
    """
    about = read_about(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    return {"state_dict": {}, KEY: {**about, "ema": tensors, "ema_name": about["weights"]}}


def read_about(path: Path) -> dict[str, Any]:
    """What a model's file tells of it, without its weights. Raises as `read_exported` does."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a model ({error}). Copy it again, or export it again.") from error
    if not isinstance(about, dict):
        raise UserError(
            f"{path} was not exported by diffusion_art: its metadata has no {KEY!r} part. "
            "Export a run: python -m diffusion_art.export run=logs/quickstart"
        )
    return about
