"""Finding and loading a text encoder of transformers and its tokenizer, from a folder or the hub."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from diffusion_art.errors import UserError, first_line
from diffusion_art.extras import install_command, missing
from diffusion_art.models.hub import on_hub
from diffusion_art.models.tokenizer import REMEMBERED, report_truncation

CONFIG = "config.json"
CLIPS = ("clip", "clip_text_model")  # kinds with a pooled vector of their own
INSTALL = install_command("transformers")


class HubTokenizer:
    """A tokenizer of transformers: a caption with its special tokens, cut to `context_length` ids.

    A caption of no tokens is read as one token, the end of text. `truncated` counts the distinct captions that did not
    fit; the 1st, 10th, 100th, ... of them is logged.
    """

    def __init__(self, tokenizer: Any, *, context_length: int, config: Any) -> None:
        most = getattr(config, "max_position_embeddings", None) or context_length
        self.context_length = min(context_length, most, tokenizer.model_max_length)
        self.truncated = 0
        self._tokenizer = tokenizer
        named = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, 0)
        self.pad_id = next(token for token in named if token is not None)
        self._empty = [next(token for token in (*named[1:3], self.pad_id) if token is not None)]
        self._known: dict[str, array[int]] = {}

    def ids(self, caption: str) -> list[int]:
        known = self._known.get(caption)
        if known is not None:
            return known.tolist()
        ids = self._tokenizer(caption, verbose=False)["input_ids"] or self._empty
        if len(ids) > self.context_length:
            self.truncated = report_truncation(self.truncated, caption, len(ids), self.context_length)
            ids = self._tokenizer(caption, truncation=True, max_length=self.context_length)["input_ids"]
        if len(self._known) < REMEMBERED:
            self._known[caption] = array("I", ids)
        return list(ids)


def reachable(path: str, subfolder: str | None) -> bool:
    """Whether a model would be found: on disk, in a cache, or on a hub that answers now."""
    if Path(path).expanduser().exists():
        return True
    return _may_be_on_hub(path) and on_hub(path, [f"{subfolder}/{CONFIG}" if subfolder else CONFIG])


def load(path: str, subfolder: str | None, *, dtype: torch.dtype) -> tuple[Any, Any]:
    """The text tower, frozen, and the tokenizer.

    Raises:
        UserError: transformers is not installed, or one of the two cannot be had.
    """
    if missing("transformers"):
        raise UserError(
            f"a text encoder of transformers needs that library, which is not installed. Install it: {INSTALL}"
        )
    home = Path(path).expanduser()
    if not home.exists() and not _may_be_on_hub(path):
        raise UserError(f"there is no text encoder at model.text_encoder.path={path}. {mends('NAME')}")
    below = home / (subfolder or "")
    if home.exists() and not (below / CONFIG).is_file():
        raise UserError(f"{below} holds no model of transformers: it has no {CONFIG}. {mends('NAME')}")
    with _quietly():
        tower = _tower(str(home) if home.exists() else path, subfolder, dtype)
        return tower.eval().requires_grad_(False), _tokenizer(str(home) if home.exists() else path, subfolder)


def mends(name: str) -> str:
    return (
        f"Where the hub can be reached, download it: `hf download {name} --local-dir FOLDER`; then give "
        "model.text_encoder.path=FOLDER."
    )


def _may_be_on_hub(path: str) -> bool:
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) is not None and not path.startswith(".")


def _tower(place: str, subfolder: str | None, dtype: torch.dtype) -> Any:
    import transformers  # a second to import, and of an extra

    where = {"subfolder": subfolder} if subfolder else {}
    safe = {"trust_remote_code": False, "use_safetensors": True}
    with _told(place, "the text encoder"):
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False, **where)
        found, seen = _kind(config).from_pretrained(
            place, dtype=dtype, attn_implementation="eager", output_loading_info=True, **safe, **where
        )
    lacking = set(seen["missing_keys"])
    if getattr(found, "pooler", None) is not None and any(name.startswith("pooler.") for name in lacking):
        found.pooler, lacking = None, {name for name in lacking if not name.startswith("pooler.")}
    if lacking:
        raise UserError(
            f"the weights of {place} are not all there: {len(lacking)} are missing, such as {min(lacking)}. "
            f"{mends(place)}"
        )
    found.config.get_text_config().use_cache = False  # of what a network that writes would need next
    encodes_only = _kind(config) in (transformers.AutoModelForTextEncoding, *_clips())
    return found.get_encoder() if config.is_encoder_decoder and not encodes_only else found


def _kind(config: Any) -> Any:
    """The class that reads the text tower alone, or else the whole model."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

    plain, projected = _clips()
    if config.model_type in CLIPS:
        return plain if (config.architectures or [""])[0] == plain.__name__ else projected
    if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING:
        return transformers.AutoModelForTextEncoding
    return transformers.AutoModel


def _clips() -> tuple[Any, Any]:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    return CLIPTextModel, CLIPTextModelWithProjection


def _tokenizer(place: str, subfolder: str | None) -> Any:
    """That of a pipeline's `text_encoder_2` lies in `tokenizer_2`."""
    import transformers

    beside = (subfolder or "").replace("text_encoder", "tokenizer")
    with _told(place, "the tokenizer"):
        return transformers.AutoTokenizer.from_pretrained(place, subfolder=beside, trust_remote_code=False)


@contextmanager
def _told(place: str, what: str) -> Iterator[None]:
    """What transformers, the hub, tokenizers and safetensors raise, as one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = first_line(error)
        if not Path(place).exists() and not on_hub(place, [CONFIG]):
            reason = "no folder here, and no answer from the hub"
        raise UserError(f"{what} of {place} cannot be had: {reason}. {mends(place)}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Without bars, and reports of the weights that a text tower does not have."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
