"""Models to hand on: one safetensors file each, with all that painting needs and nothing else.

The tensors are the trainable weights by name, in the precision that they were written in, and as `codec.NAME` those of
a VAE that the checkpoint holds. The file's metadata holds, under `diffusion_art`, a JSON object like that part of a
checkpoint (`checkpoints.py`): format, config, step, versions, commit, text_encoder, codec, and

    weights         which of the checkpoint's weights these are, such as ema
    checkpoint      the id of the checkpoint that they are from

The optimiser's state, other averages, and of the config where pictures and a held VAE lay are left out. The place of a
frozen text encoder is kept, since painting needs it.
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
CODEC = "codec."  # of the names of a VAE's weights
TOLD = ("model", "sampler", "guidance_scale", "guidance", "prompts", "name", "data")  # of the config
PLACES = ("path", "images", "url", "token", "ca", "cache")  # at any depth of `data`, and of a VAE in the file


def write_exported(
    path: Path, record: Record, tensors: dict[str, torch.Tensor], *, weights: str, checkpoint: str
) -> None:
    """Write a model; `record` is that of its checkpoint. A file that is there is replaced."""
    config = {name: value for name, value in record.config.items() if name in TOLD}
    if config.get("data"):
        config["data"] = _without_places(config["data"])
    about = record.plain()
    kept = {name: about[name] for name in ("format", "step", "versions", "commit", "text_encoder") if name in about}
    if record.codec:
        kept["codec"] = {name: value for name, value in record.codec.items() if name != "weights"}
    if record.codec and (held := record.codec.get("weights")):
        tensors = tensors | {CODEC + name: value for name, value in held.items()}
        config["model"] = {**config["model"], "codec": _without_places(config["model"]["codec"])}
    told = json.dumps({**kept, "config": config, "weights": weights, "checkpoint": checkpoint})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, tensors, metadata={"format": "pt", KEY: told})


def _without_places(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _without_places(value) for name, value in node.items() if name not in PLACES}
    return [_without_places(value) for value in node] if isinstance(node, list) else node


def read_exported(path: Path) -> dict[str, Any]:
    """A model's file as a checkpoint reads, its weights as the averaged ones.

    Raises:
        UserError: truncated, or another program's.
    """
    about = read_about(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    held = {name.removeprefix(CODEC): tensors.pop(name) for name in list(tensors) if name.startswith(CODEC)}
    codec = {"codec": {**about["codec"], "weights": held}} if held else {}
    return {"state_dict": {}, KEY: {**about, **codec, "ema": tensors, "ema_name": about["weights"]}}


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
