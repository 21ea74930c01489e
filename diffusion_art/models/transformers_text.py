"""Text encoders of transformers: a folder or a hub's name -> a frozen tower of any family.

    BERT, MiniLM, ...       reads both ways     pooled: the mean of the real tokens' states
    T5, mT5, ...            its encoder alone   pooled: likewise
    Qwen, Llama, GPT-2, ... reads forward only  pooled: the last real token's state, which has seen all others
    CLIP                    its text tower      pooled: its own, projected where the model has a projection

Weights are read from safetensors only, and no code that lies beside them is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.func import functional_call

from diffusion_art.devices import DTYPES, precision_named
from diffusion_art.errors import UserError
from diffusion_art.models.frozen_text import FrozenTextEncoder, digest_of
from diffusion_art.models.transformers_weights import CLIPS, HubTokenizer, load, reachable

POOLING = ("auto", "mean", "first", "last")


class Transformers(FrozenTextEncoder):
    """A text encoder of transformers, frozen; how captions are read and remembered is said in `frozen_text.py`.

    `path` is a folder that transformers wrote, or a name on the hub. In either, `subfolder` may say where, such as the
    `text_encoder_2` of a pipeline, whose tokenizer is that of `tokenizer_2`. A caption is cut to `context_length`
    tokens, or fewer where the tower reads fewer.

    Token states are those after block `layer`: -1 the last, past the final norm, -2 the one before it, and so on.
    `pooling` is `auto`, as said above, or mean, first or last: of the real tokens' states. `precision` is fp32, bf16,
    fp16, or `auto`: weights in fp32, and a copy in bf16 on a GPU that computes in it.

    Raises:
        UserError: transformers is not installed; there is no such model here or on the hub; it has no safetensors or no
            tokenizer; a layer, pooling or precision that it has not; a cache of fewer than no captions.
    """

    tower: Any

    @classmethod
    def reachable(cls, settings: Mapping[str, Any]) -> bool:
        return reachable(settings["path"], settings.get("subfolder"))

    @classmethod
    def called(cls, settings: Mapping[str, Any]) -> str:
        return f"transformers {settings['path']}"

    def __init__(
        self,
        *,
        path: str,
        subfolder: str | None = None,
        layer: int = -1,
        pooling: str = "auto",
        context_length: int = 128,
        precision: str = "auto",
        cache_captions: int = 16384,
    ) -> None:
        precision = precision_named(precision)
        for name, value, known in (("precision", precision, ("auto", *DTYPES)), ("pooling", pooling, POOLING)):
            if value not in known:
                raise UserError(f"model.text_encoder.{name}={value} is not one of {', '.join(known)}.")
        if context_length < 2:
            raise UserError(f"model.text_encoder.context_length={context_length} is too few tokens: give 2 or more.")
        tower, tokens = load(path, subfolder, dtype=DTYPES.get(precision, torch.float32))
        tokenizer = HubTokenizer(tokens, context_length=context_length, config=tower.config.get_text_config())
        super().__init__(tower, tokenizer=tokenizer, precision=precision, cache_captions=cache_captions)
        self.path, self.subfolder, self.layer = path, subfolder, layer
        self.pooling = "mean"
        self._look(pooling)

    @torch.no_grad()
    def _look(self, pooling: str) -> None:
        """Ask the tower about two short texts: which layers and sizes it has, and whether it reads forward only."""
        ids = torch.tensor([[5, 6], [5, 7]])
        seen = self.tower(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        layers = len(seen.hidden_states)
        if not -layers <= self.layer < 0:
            raise UserError(
                f"model.text_encoder.layer={self.layer} is not one of {self.path}: give -1, the last, to {-layers}."
            )
        forward_only = torch.equal(*seen.hidden_states[-1][:, 0])
        own = "own" if self.tower.config.model_type in CLIPS else "last" if forward_only else "mean"
        self.pooling = own if pooling == "auto" else pooling
        states, pooled = self.answer(ids, torch.ones_like(ids, dtype=torch.bool), {})
        self.dim, self.pooled_dim = states.shape[-1], pooled.shape[-1]

    def answer(
        self, ids: Int[Tensor, "m l"], mask: Bool[Tensor, "m l"], weights: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "m l d"], Float[Tensor, "m p"]]:
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long()}
        if self.layer != -1:
            given["output_hidden_states"] = True
        seen = functional_call(self.tower, weights, (), given) if weights else self.tower(**given)
        states = seen.last_hidden_state if self.layer == -1 else seen.hidden_states[self.layer]
        return states, self._pooled(seen, states, mask)

    def _pooled(self, seen: Any, states: Float[Tensor, "m l d"], mask: Bool[Tensor, "m l"]) -> Float[Tensor, "m p"]:
        if self.pooling == "own":
            return seen.text_embeds if "text_embeds" in seen else seen.pooler_output
        if self.pooling == "mean":
            real = mask[..., None]
            return (torch.where(real, states.float(), 0).sum(1) / real.sum(1)).to(states.dtype)
        last = mask.sum(1) - 1 if self.pooling == "last" else torch.zeros_like(mask[:, 0], dtype=torch.long)
        return states[torch.arange(len(states), device=states.device), last]

    @cached_property
    def sha256(self) -> str:
        """Of the tower's weights, names and values, and of what is taken from it."""
        digest = digest_of(self.tower)
        digest.update(json.dumps([self.layer, self.pooling]).encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in ("path", "subfolder", "layer", "pooling", "sha256")}
        return {"class": type(self).__name__, **told}
