"""Finding and loading one half of a pretrained open_clip model."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip
from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.factory import get_model_config, parse_model_name
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.transformer import TextTransformer
from torch import nn

from diffusion_art.devices import precision_named
from diffusion_art.errors import UserError
from diffusion_art.files import newest_first
from diffusion_art.models.hub import REACH_TIMEOUT_S, on_hub

LOCAL_DIR = "local-dir:"
MENDS = (
    "Run once where the Hugging Face hub can be reached (the weights are then cached), or give a file of "
    "them: model.text_encoder.pretrained=FILE, or train a small text tower along instead: "
    "model/text_encoder=open_clip_scratch."
)
IMAGE_MENDS = (
    "Run once where the Hugging Face hub can be reached (the weights are then cached), or give a file of "
    "them: alignment.tower.pretrained=FILE, or align with a network that needs no hub: alignment=features."
)

CLIP_MENDS = (
    "Run once where the Hugging Face hub can be reached (the weights are then cached), or give a file or folder of "
    "them: clip.pretrained=FILE or clip.model=local-dir:FOLDER; or measure kid, which needs no hub: 'metrics=[kid]'."
)


def weights_reachable(model: str, pretrained: str | None) -> bool:
    """Whether a tower's weights would be found: on disk, in a cache, or on a hub that answers now."""
    model, pretrained = _local_dir_is_a_model(model, pretrained)
    schema, name = parse_model_name(model)
    if schema == "local-dir":
        folder = Path(name)
        return any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")) or any(folder.glob("*.pth"))
    if schema == "hf-hub":
        return _on_hub(name, "")
    if pretrained and Path(pretrained).is_file():
        return True
    source = get_pretrained_cfg(name.replace("/", "-"), pretrained or "")
    if hub := source.get("hf_hub"):
        return _on_hub(*os.path.split(hub))
    return bool(source.get("url")) and _at_url(source["url"])


def load_text_tower(model: str, pretrained: str | None, *, precision: str = "fp32") -> TextTransformer:
    """The text tower of an open_clip model with its weights, frozen: ids -> (pooled [b p], tokens [b l d]).

    `model` is an open_clip name, `hf-hub:ORG/REPO` or `local-dir:FOLDER`; `pretrained` goes with the first,
    a tag or a file.

    Raises:
        UserError: an unknown model or tag, a tokenizer that is not CLIP's, or weights that cannot be had.
    """
    clip = _load(model, pretrained, precision=precision, check=_check_tokenizer, mends=MENDS)
    tower: TextTransformer = clip.text
    tower.output_tokens = True
    return tower.eval().requires_grad_(False)


def load_image_tower(model: str, pretrained: str | None, *, precision: str = "fp32") -> nn.Module:
    """The image tower of an open_clip model with its weights, frozen; `model` and `pretrained` as of the text tower.

    Raises:
        UserError: an unknown model or tag, or weights that cannot be had.
    """
    clip = _load(model, pretrained, precision=precision, check=lambda model: None, mends=IMAGE_MENDS)
    return clip.visual.eval().requires_grad_(False)


def load_clip(model: str, pretrained: str | None, *, precision: str = "fp32") -> nn.Module:
    """Both towers of an open_clip model with their weights, frozen.

    Raises:
        UserError: an unknown model or tag, a tokenizer that is not CLIP's, or weights that cannot be had.
    """
    clip = _load(model, pretrained, precision=precision, check=_check_tokenizer, mends=CLIP_MENDS)
    return clip.eval().requires_grad_(False)


def _load(model: str, pretrained: str | None, *, precision: str, check: Callable[[str], None], mends: str) -> Any:
    """Both towers. `check` refuses a model by its settings."""
    model, pretrained = _local_dir_is_a_model(model, pretrained)
    schema, _ = parse_model_name(model)
    if schema is None:
        _check_names(model, pretrained)
        check(model)
    if not weights_reachable(model, pretrained):
        raise UserError(f"the weights of open_clip {called(model, pretrained)} cannot be reached. {mends}")
    if schema is not None:
        check(model)
    try:
        return open_clip.create_model(
            model,
            pretrained or None,
            precision=precision_named(precision),
            force_custom_text=True,
            require_pretrained=True,
        )
    except Exception as error:  # open_clip, the hub, safetensors and pickle each raise their own
        raise UserError(
            f"what lies at {called(model, pretrained)} are no weights of that open_clip model "
            f"({type(error).__name__}). {mends}"
        ) from error


def called(model: str, pretrained: str | None) -> str:
    return f"{model} / {pretrained}" if pretrained else model


def local_dir_of_run(model: str) -> str:
    """The name itself; of `local-dir:RUN`, a run of `+experiment=clip` or a folder of such runs, the newest `clip/`."""
    home = Path(model.removeprefix(LOCAL_DIR)).expanduser()
    if not model.startswith(LOCAL_DIR) or (home / HF_CONFIG_NAME).is_file():
        return model
    newest = newest_first(home.glob("*/clip"))
    found = [folder for folder in (home / "clip", *newest) if (folder / HF_CONFIG_NAME).is_file()]
    return f"{LOCAL_DIR}{found[0]}" if found else model


def _local_dir_is_a_model(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """open_clip takes a local folder as the model's name, but people give it as the weights too."""
    if pretrained and pretrained.startswith(LOCAL_DIR):
        return local_dir_of_run(pretrained), None
    model = local_dir_of_run(model)
    return model, None if parse_model_name(model)[0] else pretrained


def _check_names(model: str, pretrained: str | None) -> None:
    name = model.replace("/", "-")
    if name not in open_clip.list_models():
        near = get_close_matches(name, open_clip.list_models(), n=3) or ["ViT-B-32", "ViT-L-14"]
        raise UserError(f"open_clip has no model named {model!r}; did you mean {' or '.join(near)}?")
    tags = list_pretrained_tags_by_model(name)
    if not pretrained or not (get_pretrained_cfg(name, pretrained) or Path(pretrained).is_file()):
        raise UserError(
            f"pretrained={pretrained!r} is neither a file nor a tag of open_clip {model}. "
            f"Its tags are: {', '.join(tags) or 'none'}."
        )


def _check_tokenizer(model: str) -> None:
    try:
        text = (get_model_config(model) or {}).get("text_cfg", {})
    except Exception as error:  # a folder without a readable config, a hub that went away
        raise UserError(f"open_clip {model} has no readable open_clip_config.json ({error}). {MENDS}") from error
    if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise UserError(
            f"the text tower of open_clip {model} needs another tokenizer than CLIP's, the only one here. "
            "Choose a model that has CLIP's, such as ViT-B-32, ViT-L-14 or ViT-H-14."
        )


def _on_hub(repo: str, filename: str) -> bool:
    names = [filename or HF_WEIGHTS_NAME, HF_SAFE_WEIGHTS_NAME]
    names += [str(Path(name).with_suffix(".safetensors")) for name in names[:1]]
    return on_hub(repo, names)


def _at_url(url: str) -> bool:
    if (Path.home() / ".cache" / "clip" / Path(url).name).is_file():
        return True
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=REACH_TIMEOUT_S):
            return True
    except OSError:
        return False
