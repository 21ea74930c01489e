"""What a GPU computes is what a CPU does, within stated bounds."""

from __future__ import annotations

import pytest
import torch

from diffusion_art.diffusion.samplers import SAMPLERS, by_name
from tests.fakes import JIT_CONFIG, toy_model

CAPTIONS = ["a red house", "blue and yellow planes, a longer caption", ""]
NETWORKS = {"unet": {}, "jit": {"backbone": JIT_CONFIG}}
BF16_ERROR = 3e-2  # of a network's answer, 2-norm over 2-norm: bfloat16 keeps 8 bits of a factor
PIXEL_ERROR = 5e-3  # of pictures in [-1, 1], at most: two thirds of a step of 8-bit pixels


@pytest.mark.parametrize("network", NETWORKS)
def test_bf16_answers_as_float32_does(network, device):
    model = toy_model(**NETWORKS[network]).to(device)
    cond = model.encode_captions(CAPTIONS)
    x_t = torch.randn(3, *model.latent_shape, generator=torch.Generator().manual_seed(0)).to(device)
    t = torch.tensor([0.1, 0.5, 0.9]).to(device)
    with torch.no_grad():
        exact = model.denoise(x_t, t, cond).float()
        with torch.autocast(device, torch.bfloat16):
            fast = model.denoise(x_t, t, cond).float()
    assert 0 < (fast - exact).norm() / exact.norm() < BF16_ERROR


@pytest.mark.usefixtures("full_float32")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_weights_of_a_cpu_paint_the_same_picture(name, network, device):
    """From the same noise: it is drawn on the CPU, each picture's from its own seed."""
    how = {"seeds": [1, 2, 3], "sampler": by_name(name, num_steps=4), "guidance_scale": 2.0}
    here = toy_model(**NETWORKS[network]).generate(CAPTIONS, **how)
    there = toy_model(**NETWORKS[network]).to(device).generate(CAPTIONS, **how)
    assert (here - there).abs().max() < PIXEL_ERROR
    assert here.std() > 0.1
