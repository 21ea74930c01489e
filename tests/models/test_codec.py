from __future__ import annotations

import pytest
import torch

from diffusion_art.models.codec import Pixel, Unshuffle2, Unshuffle4


@pytest.mark.parametrize("codec", [Pixel(), Unshuffle2(), Unshuffle4()], ids=lambda codec: type(codec).__name__)
def test_decoding_what_was_encoded_gives_the_same_bits(codec):
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    latents = codec.encode(images)
    assert latents.shape == (2, codec.channels, 8 // codec.factor, 12 // codec.factor)
    assert torch.equal(codec.decode(latents), images)


def test_unshuffle_stacks_each_2x2_block_as_its_docstring_says():
    images = torch.rand(1, 3, 6, 6)
    latents = Unshuffle2().encode(images)
    for c, i, j, y, x in [(0, 0, 0, 0, 0), (1, 1, 0, 2, 1), (2, 0, 1, 1, 2), (2, 1, 1, 2, 2)]:
        assert latents[0, 4 * c + 2 * i + j, y, x] == images[0, c, 2 * y + i, 2 * x + j]
