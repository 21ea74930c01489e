"""Random numbers as a function of a counter and a key: any of them, in any order, by the same arithmetic on any device.

Philox 4x32-10 maps a counter of four 32-bit words under a key of two to four random words. A GPU draws the noise of a
whole batch in one go, and what it draws for a picture depends on neither the batch nor the rank.

Paper: Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3, https://doi.org/10.1145/2063384.2063405
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

WORD = 2**32 - 1
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # what the key's words grow by from round to round
ROUNDS = 10

Words = tuple[Tensor, Tensor, Tensor, Tensor]  # int64 with values below 2^32; shapes that broadcast together


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four random words for each counter."""
    c0, c1, c2, c3 = counter
    for number in range(ROUNDS):
        k0, k1 = ((word + number * step) & WORD for word, step in zip(key, WEYL, strict=True))
        # products of two words wrap round in int64; their 64 bits are right all the same
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c2 = ((second >> 32) ^ c1 ^ k0) & WORD, ((first >> 32) ^ c3 ^ k1) & WORD
        c1, c3 = second & WORD, first & WORD
    return c0, c1, c2, c3


def normal_at(
    positions: Int[Tensor, " b"], shape: tuple[int, ...], *, key: int, draw: int = 0
) -> Float[Tensor, " b *shape"]:
    """Unit noise in float32 on the device of `positions`: row i is a function of (`key`, `draw`, positions[i]).

    The counter is (element // 4, draw, low and high word of the position), the `key` has 64 bits. Two words make two
    normal numbers (Box & Muller 1958), none of them beyond 6.8.
    """
    count = math.prod(shape)
    blocks = torch.arange(-(-count // 4), device=positions.device)[None]
    at = positions[:, None]
    words = philox((blocks, torch.full_like(blocks[:, :1], draw), at & WORD, at >> 32), (key & WORD, key >> 32 & WORD))
    pairs = (*_normal(words[0], words[1]), *_normal(words[2], words[3]))
    return torch.stack(pairs, dim=-1).flatten(1)[:, :count].reshape(len(positions), *shape)


def _normal(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent normal numbers of two words."""
    radius = (first.float() * 2.0**-32 + 2.0**-33).clamp_(max=1.0).log_().mul_(-2.0).sqrt_()
    angle = second.float() * (2.0 * math.pi * 2.0**-32)
    return radius * angle.cos(), radius * angle.sin()
