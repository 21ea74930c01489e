"""Pictures and maps are resized as torch resizes them."""

from __future__ import annotations

import pytest
import torch

from diffusion_art.accel.layers import resized, resized_plainly


@pytest.mark.parametrize(("n", "side"), [(4, 7), (2, 3), (4, 4), (8, 3), (32, 96), (200, 96)])
def test_a_picture_or_map_is_resized_as_torch_does_it(n, side):
    x = torch.randn(2, 5, n, n, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resized(x, side), resized_plainly(x, side), atol=1e-5, rtol=1e-5)
