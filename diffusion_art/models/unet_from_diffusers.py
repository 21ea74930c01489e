"""Starting from a UNet that diffusers wrote: its shape as the arguments of ours, and its weights.

A folder is what `save_pretrained` of a UNet or of a whole pipeline leaves. Of a pipeline that `export` wrote the text
tower is taken too, if it was trained along with the UNet. Weights are read from safetensors only.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion_art.errors import UserError
from diffusion_art.models.text_encoder import OpenClipScratch
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.models.unet import UNet
from diffusion_art.models.unet_settings import heads_of

WEIGHTS = "diffusion_pytorch_model"
FREE = ("sample_size", "dropout", "attention_head_dim", "num_attention_heads")  # not in the weights, or looked at apart
FROM = {  # where a run's own value comes from
    "in_channels": "the codec's: model/codec=pixel has 3, unshuffle2 12, unshuffle4 48",
    "out_channels": "the codec's: model/codec=pixel has 3, unshuffle2 12, unshuffle4 48",
    "cross_attention_dim": "that of the token states of model.text_encoder",
    "projection_class_embeddings_input_dim": "that of the pooled vector of model.text_encoder",
    "class_embed_type": "how our UNet reads the pooled vector",
}


def unet_arguments(folder: Path, *, sample_size: int) -> dict[str, Any]:
    """What `UNet` is to be built with, for latents of this side, to have the shape of the folder's.

    Raises:
        UserError: no UNet there, or numbers of heads that ours cannot have.
    """
    config = _config(unet_folder(folder), "UNet2DConditionModel")
    widths = list(config["block_out_channels"])
    attends = [kind.startswith("CrossAttn") for kind in config["down_block_types"]]
    layers = config["layers_per_block"]
    return {
        "block_channels": widths,
        "layers_per_block": layers if isinstance(layers, int) else list(layers),
        "attention_sides": [sample_size // 2**level for level, attend in enumerate(attends) if attend],
        "head_channels": _head_channels(folder, config, widths, attends),
        "norm_groups": config["norm_num_groups"],
    }


def tower_arguments(folder: Path) -> dict[str, Any] | None:
    """What `OpenClipScratch` is to be built with to be the pipeline's text tower; None where that is another's."""
    if not _has_tower(folder):
        return None
    config = _config(folder / "text_encoder", "TextTower")
    shared = ("width", "layers", "heads", "vocab_size", "context_length", "pooled_dim")
    return {name: config[name] for name in shared} | {"mlp_ratio": config["hidden"] / config["width"]}


def load_from_diffusers(model: TextToImage, folder: Path) -> list[str]:
    """Copy the folder's weights into the model. Returns what was taken: `unet`, and perhaps `text_encoder`.

    Raises:
        UserError: the UNet there has another shape; both values are named. No safetensors.
    """
    assert isinstance(model.backbone, UNet)
    home = unet_folder(folder)
    _check_same(folder, _config(home, "UNet2DConditionModel"), dict(model.backbone.net.config))
    _load(model.backbone.net, _weights(home), home)
    if not (_has_tower(folder) and isinstance(model.text_encoder, OpenClipScratch)):
        return ["unet"]
    _load(model.text_encoder, _weights(folder / "text_encoder"), folder / "text_encoder")
    return ["unet", "text_encoder"]


def unet_folder(folder: Path) -> Path:
    """The folder itself, or the `unet` of a pipeline's."""
    return folder / "unet" if (folder / "unet" / "config.json").is_file() else folder


def _has_tower(folder: Path) -> bool:
    file = folder / "text_encoder" / "config.json"
    return file.is_file() and json.loads(file.read_text()).get("_class_name") == "TextTower"


def _helps(folder: Path, error: Exception) -> str:
    """The end of a sentence about a folder that is none, and where it is a run or a model of ours, what to do."""
    if folder.suffix in (".safetensors", ".ckpt") or any(folder.glob("checkpoints/*.ckpt")):
        first = f"python -m diffusion_art.export run={folder} format=diffusers path=PIPELINE"
        return f". Make one of it first: {first}, then init_from=PIPELINE"
    if not folder.exists():
        return ": there is none. One of the hub is downloaded first: hf download NAME --local-dir FOLDER"
    return f": its config.json cannot be read ({error})."


def _config(folder: Path, kind: str) -> dict[str, Any]:
    """config.json with the defaults of what it leaves out."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"init_from={folder} is no folder of diffusers{_helps(folder, error)}") from error
    if (found := config.get("_class_name")) != kind:
        raise UserError(f"{file} describes _class_name={found}, and a run can start from {kind} only.")
    if kind != "UNet2DConditionModel":
        return config
    parameters = inspect.signature(UNet2DConditionModel.__init__).parameters
    return {name: one.default for name, one in parameters.items() if name != "self"} | config


def _head_channels(folder: Path, config: dict[str, Any], widths: list[int], attends: list[bool]) -> int:
    """The channels of a head that give every level its number of heads."""
    given = config["num_attention_heads"] or config["attention_head_dim"]
    heads = [given] * len(widths) if isinstance(given, int) else list(given)
    for channels in range(max(widths), 0, -1):
        made = [heads_of(width, channels) for width in widths]
        if all(a == b for a, b, attend in zip(made, heads, attends, strict=True) if attend):
            return channels
    nearest = [heads_of(width, max(1, widths[-1] // heads[-1])) for width in widths]
    raise UserError(
        f"{folder} has attention_head_dim={heads} heads on levels of {widths} channels, and our UNet, whose heads have "
        f"the same width on each level, would have {nearest}: it cannot be built."
    )


def _check_same(folder: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for key, own in ours.items():
        if key.startswith("_") or key in FREE:
            continue
        if (its := _plain(theirs.get(key))) != (own := _plain(own)):
            reason = f" ({FROM[key]})" if key in FROM else ""
            raise UserError(f"{folder} has a UNet with {key}={its}, and this run's has {key}={own}{reason}.")


def _plain(value: Any) -> Any:
    """One value for all levels and a list of equal ones are the same."""
    if not isinstance(value, list | tuple):
        return value
    return value[0] if len(set(value)) == 1 else tuple(value)


def _weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of one file or of several that were split; of a variant (`fp16`), where that is all there is."""
    found = [sorted(folder.glob(f"{WEIGHTS}{more}.safetensors")) for more in ("", "-*-of-*", ".*")]
    files = next(filter(None, found), [])
    files = [file for file in files if file.name.partition("-")[0] == files[0].name.partition("-")[0]]  # of one variant
    if not files:
        there = ", ".join(sorted(file.name for file in folder.glob("*.*") if file.suffix != ".json")) or "nothing"
        raise UserError(
            f"{folder} has no {WEIGHTS}.safetensors but {there}, and only safetensors are read. Write it anew in "
            "diffusers: UNet2DConditionModel.from_pretrained(...).save_pretrained(...)."
        )
    try:
        return {name: value for file in files for name, value in load_file(file).items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"the weights in {folder} cannot be read ({error}). Copy them again.") from error


def _load(network: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    own = network.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        its, ours = (list(side[name].shape) if name in side else "missing" for side in (weights, own))
        if its != ours:
            raise UserError(f"the weights in {folder} do not fit their config: {name} is {its}, and ours is {ours}.")
    network.load_state_dict(weights)
