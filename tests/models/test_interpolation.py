"""Between two pictures: the ends are what painting gives, the middle is neither, and noise stays noise."""

from __future__ import annotations

import pytest
import torch

from diffusion_art.diffusion.samplers import NoiseSource, by_name
from diffusion_art.errors import UserError
from diffusion_art.models.interpolation import NoiseBetween, paint_between_captions, paint_between_seeds, slerp
from tests.fakes import toy_model

SHAPE = (3, 32, 32)


def test_noise_between_two_seeds_stays_unit_noise_and_a_straight_line_does_not():
    first, last = (NoiseSource([seed], SHAPE).x_T() for seed in (1, 2))
    middle = slerp(first, last, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(middle[0], first[0])
    torch.testing.assert_close(middle[2], last[0])
    assert middle[1].std().item() == pytest.approx(1, abs=0.03)
    assert torch.lerp(first, last, 0.5).std() < 0.75
    assert torch.allclose(slerp(first, first, torch.tensor([0.5])), first)


def test_the_angle_is_divided_evenly():
    first, last = (NoiseSource([seed], SHAPE).x_T() for seed in (1, 2))
    way = slerp(first, last, torch.linspace(0, 1, 5)).flatten(1)
    between = torch.nn.functional.cosine_similarity(way[1:], way[:-1])
    torch.testing.assert_close(between, between[:1].expand(4), atol=0.01, rtol=0)  # but for their lengths


def test_each_steps_noise_goes_the_same_way():
    between = NoiseBetween(1, 2, torch.tensor([0.0, 1.0]), SHAPE)
    for step in (0, 3):
        torch.testing.assert_close(between(step), NoiseSource([1, 2], SHAPE)(step))


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "stochastic_heun"])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_both_ends_are_what_painting_gives(sampler, guidance_scale):
    model = toy_model()
    settings = {"sampler": by_name(sampler, num_steps=3), "guidance_scale": guidance_scale}
    captions = ("a red house in the snow", "blue")
    way = paint_between_captions(model, *captions, frames=3, seed=5, **settings)
    ends = model.generate(captions, seeds=[5, 5], **settings)
    torch.testing.assert_close(way[[0, 2]], ends, atol=1e-4, rtol=1e-4)
    assert not any(torch.allclose(way[1], end, atol=1e-2) for end in ends)
    way = paint_between_seeds(model, "blue", seeds=(3, 8), frames=3, **settings)
    ends = model.generate(["blue", "blue"], seeds=[3, 8], **settings)
    torch.testing.assert_close(way[[0, 2]], ends, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(way[1], ends.mean(0), atol=1e-2)


def test_one_frame_is_no_way():
    with pytest.raises(UserError, match="frames=1 are too few"):
        paint_between_seeds(toy_model(), "blue", seeds=(0, 1), frames=1, sampler=by_name("ddim", num_steps=1))
