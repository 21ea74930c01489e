"""Layer norm and RMS norm of tokens in the precision that they come in.

Under autocast CUDA's norms want float32: each norm of bfloat16 tokens is a copy, a norm of twice the bytes and a copy
back. Its kernels take bfloat16 as well, and sum in float32 all the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel import switch

LOW = (torch.bfloat16, torch.float16)


class TokenNorm(nn.LayerNorm):
    """`norm`, a layer norm with its weights, answering in the dtype of its input where that is fast."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(list(norm.normalized_shape), norm.eps, device="meta")
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, input: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The argument's name is torch's."""
        if not is_fast(input):
            return super().forward(input)
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        with torch.autocast(input.device.type, enabled=False):
            return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def rms_norm(x: Float[Tensor, "*b d"], *, eps: float) -> Float[Tensor, "*b d"]:
    """x over its root mean square along the last axis, without weights."""
    if not is_fast(x):
        return F.rms_norm(x, x.shape[-1:], eps=eps)
    with torch.autocast(x.device.type, enabled=False):
        return F.rms_norm(x, x.shape[-1:], eps=eps)


def is_fast(x: Tensor) -> bool:
    """Whether autocast would bring tokens to float32 that CUDA's kernels take as they are."""
    return (
        x.device.type == "cuda" and switch.ACCELERATES and x.dtype in LOW and torch.is_autocast_enabled(x.device.type)
    )
