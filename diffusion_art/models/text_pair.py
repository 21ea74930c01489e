"""Several text encoders as one: each caption is read by all of them.

    tokens   b (l_1 + l_2) (d_1 + d_2)    one encoder's states after the other's, each in channels of its own
    mask     b (l_1 + l_2)
    pooled   b (p_1 + p_2)                one beside the other

The other encoder's channels are zero at a token. So the backbone's projections of keys and values hold one projection
for each encoder, and none has to be trained here. Encoders need not cut a caption into the same tokens, as they would
have to where their states are joined along channels (SDXL).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_art.errors import UserError
from diffusion_art.models.text import TextEncoder
from diffusion_art.tensors import Conditioning


class TextPair(TextEncoder):
    """Two encoders or more, frozen or trained along, by names of yours.

    Papers: Podell et al. 2023 (SDXL), Sec. 2.1, https://arxiv.org/abs/2307.01952, for two towers; Esser et al. 2024
    (Stable Diffusion 3), Sec. 5.3, https://arxiv.org/abs/2403.03206, for tokens one after the other

    Raises:
        UserError: fewer than two encoders.
    """

    def __init__(self, *, encoders: Mapping[str, TextEncoder]) -> None:
        super().__init__()
        if len(encoders) < 2:
            raise UserError(
                f"model.text_encoder.encoders has {len(encoders)}, and a pair has two or more: for a single one take "
                "it as model/text_encoder itself."
            )
        self.encoders = nn.ModuleDict(encoders)
        self.dim = sum(encoder.dim for encoder in self._parts)
        self.pooled_dim = sum(encoder.pooled_dim for encoder in self._parts)
        self.context_length = sum(encoder.context_length for encoder in self._parts)
        self.trainable = any(encoder.trainable for encoder in self._parts)

    @property
    def _parts(self) -> list[TextEncoder]:
        return list(self.encoders.values())  # pyright: ignore[reportReturnType]

    def encode(self, captions: list[str]) -> Conditioning:
        said = [encoder.encode(captions) for encoder in self._parts]
        before, states = 0, []
        for cond in said:
            width = cond.tokens.shape[-1]
            states.append(F.pad(cond.tokens, (before, self.dim - before - width)))
            before += width
        masks: list[Tensor] = [cond.mask for cond in said]
        return Conditioning(torch.cat(states, 1), torch.cat(masks, 1), torch.cat([cond.pooled for cond in said], 1))

    @property
    def truncated(self) -> int:
        """Of the encoder that cut most."""
        return max(encoder.truncated for encoder in self._parts)

    def describe(self) -> dict[str, Any]:
        told = {name: encoder.describe() for name, encoder in self.encoders.items()}  # pyright: ignore[reportCallIssue]
        frozen = [part["sha256"] for part in told.values() if "sha256" in part]
        digest = {"sha256": hashlib.sha256("".join(frozen).encode()).hexdigest()} if frozen else {}
        return {"class": type(self).__name__, "encoders": told, **digest}
