"""What a network is told of its picture's size: nothing in a convolution, or in rotary positions, says where it ends.

Paper: Podell et al. 2023 (SDXL), section 2.2, target size as conditioning, https://arxiv.org/abs/2307.01952
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

OCTAVES = 4


class SizeEmbedding(nn.Module):
    """(rows, columns) of x_t -> what is added to the embedding of the time [d]; nothing before it is trained.

    Sides count by their logarithm, 0 at the network's own `sample_size`, as sines and cosines of OCTAVES frequencies.
    """

    outer = ("embed", "out")  # layers that Muon leaves to AdamW

    def __init__(self, width: int, sample_size: int) -> None:
        super().__init__()
        self.sample_size = sample_size
        self.embed = nn.Sequential(nn.Linear(4 * OCTAVES, width), nn.SiLU())
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, rows: int, columns: int) -> Float[Tensor, " d"]:
        octaves = [math.log2(side / self.sample_size) for side in (rows, columns)]
        angles = [math.pi / 2 * 2**i * octave for octave in octaves for i in range(OCTAVES)]
        waves = [wave(angle) for angle in angles for wave in (math.sin, math.cos)]
        # filled on the device: the host would wait for a copy, and no CUDA graph could be recorded
        filled = [torch.full((), wave, device=self.out.weight.device) for wave in waves]
        return self.out(self.embed(torch.stack(filled).to(self.out.weight)))
