"""A model that is trained on several sizes: what it paints, what it refuses, and what it is told."""

from __future__ import annotations

import pytest
import torch

from diffusion_art.callbacks.sample_grid import shown_sizes
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.errors import UserError
from diffusion_art.models.unet import TIME_SCALE
from tests.fakes import JIT_CONFIG, MODEL_CONFIG, toy_model

SIZES = ["12x20", "16x16", "20x12"]


def test_pictures_have_the_size_that_was_asked_for():
    model = toy_model(sizes=SIZES)
    asked = {"seeds": [1, 2], "sampler": Euler(num_steps=2)}
    assert model.generate(["a", "b"], size=(20, 12), **asked).shape == (2, 3, 12, 20)
    square = model.generate(["a", "b"], size=(16, 16), **asked)
    assert torch.equal(square, toy_model().generate(["a", "b"], **asked))
    with pytest.raises(UserError, match="does not paint 16x20: it was trained on 12x20, 16x16, 20x12"):
        model.generate(["a"], size=(16, 20), seeds=[1], sampler=Euler(num_steps=2))


def test_sizes_must_fit_the_network():
    with pytest.raises(UserError, match=r"14x18 px do not fit UNet and Unshuffle2.*image_size_px=16 bucket_step_px=4 "):
        toy_model(sizes=["14x18"])
    model = toy_model(sizes=["8x24", "16x16"])
    model.check_size(8)
    with pytest.raises(UserError, match="pictures of 4 px do not fit"):
        toy_model(sizes=["12x20", "16x16"]).check_size(4)


def test_buckets_share_the_schedule_of_their_square():
    model = toy_model(sizes=SIZES)
    times = torch.linspace(0.1, 0.9, 5)
    for rows, columns, side in [(6, 10, 8), (10, 6, 8), (3, 5, 4)]:
        bucket = model.schedule_of(torch.zeros(1, 12, rows, columns)).alpha_sigma(times)
        square = model.schedule_of(torch.zeros(1, 12, side, side)).alpha_sigma(times)
        assert torch.equal(bucket[0], square[0])


def test_grids_show_a_square_one_that_stands_and_one_that_lies():
    assert shown_sizes(()) == [None]
    assert shown_sizes(toy_model(sizes=SIZES).sizes) == [(16, 16), (12, 20), (20, 12)]


@pytest.mark.parametrize("backbone", [MODEL_CONFIG["backbone"], JIT_CONFIG], ids=["unet", "jit"])
def test_a_network_that_is_told_the_size_answers_by_it(backbone):
    plain = toy_model(backbone=backbone)
    told = toy_model(backbone={**backbone, "size_conditioning": True})
    told.load_trainable_state(plain.trainable_state(), strict=False)
    cond = plain.encode_captions(["a", "b"])
    x, t = torch.randn(2, 12, 6, 10, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.8])
    assert not torch.allclose(told.denoise(x, t, cond), plain.denoise(x, t, cond))
    torch.nn.init.zeros_(told.backbone.size_embedding.out.weight)
    torch.nn.init.zeros_(told.backbone.size_embedding.out.bias)
    assert torch.equal(told.denoise(x, t, cond), plain.denoise(x, t, cond))


@torch.no_grad()
def test_diffusers_own_network_has_the_size_of_squares_within():
    model = toy_model(backbone={**MODEL_CONFIG["backbone"], "size_conditioning": True})
    cond, x, t = model.encode_captions(["a"]), torch.randn(1, 12, 8, 8), torch.tensor([0.5])
    told = {"encoder_attention_mask": cond.mask, "class_labels": cond.pooled}
    theirs = model.backbone.as_diffusers()(x, t * TIME_SCALE, encoder_hidden_states=cond.tokens, **told).sample
    assert torch.allclose(theirs, model.denoise(x, t, cond), atol=1e-4)
