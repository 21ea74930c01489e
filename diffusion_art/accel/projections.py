"""Several linear maps of the same tokens by one product of matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel import switch


def projected(x: Float[Tensor, "b n c"], *projections: nn.Linear) -> tuple[Float[Tensor, "b n _"], ...]:
    """Each projection of x, all of one width and without bias, by one product."""
    if not switch.ON:
        return tuple(part(x) for part in projections)
    assert all(part.bias is None for part in projections)
    return F.linear(x, torch.cat([part.weight for part in projections])).chunk(len(projections), dim=-1)
