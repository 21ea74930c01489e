"""In which order the numbers of a map lie in memory: channels last throughout a UNet.

Convolutions and norms are faster so, and a block that turns a map makes the next one turn it back.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def channels_last(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return x.contiguous(memory_format=torch.channels_last)


def as_map(tokens: Float[Tensor, "b n c"], *, rows: int) -> Float[Tensor, "b c h w"]:
    """Positions as a map of so many rows. Where it computes on a GPU, channels stay last.

    On a CPU the map is turned, as diffusers' transformer does it: the numbers of old runs stay the same to the bit.
    """
    x = rearrange(tokens, "b (h w) c -> b c h w", h=rows)
    return x.contiguous() if x.device.type == "cpu" else x
