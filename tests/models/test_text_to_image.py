from __future__ import annotations

import logging
from functools import partial

import pytest
import torch

from diffusion_art.diffusion.samplers.ddim import Ancestral
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.diffusion.schedules import CosineSchedule
from diffusion_art.errors import UserError
from diffusion_art.models.codec import Pixel
from diffusion_art.models.text_to_image import TextToImage, _check_request
from diffusion_art.models.unet import UNet
from tests.fakes import tiny_clip, toy_model

PROMPTS = ["red", "a longer prompt of blue and yellow", "", "green"]


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("sampler", [Euler(3), Ancestral(3)], ids=lambda s: s.name)
def test_row_i_is_the_same_picture_alone_in_a_batch_and_at_any_batch_size(model, sampler, guidance_scale):
    paint = partial(model.generate, sampler=sampler, guidance_scale=guidance_scale)
    seeds = [5, 6, 7, 8]
    together = paint(PROMPTS, seeds=seeds)
    assert together.shape == (4, 3, 16, 16)
    assert together.abs().max() <= 1
    torch.testing.assert_close(paint(PROMPTS, seeds=seeds, batch_size=3), together, atol=1e-4, rtol=0)
    for row, (prompt, seed) in enumerate(zip(PROMPTS, seeds)):
        torch.testing.assert_close(paint([prompt], seeds=[seed])[0], together[row], atol=1e-4, rtol=0)


def test_seed_prompt_and_guidance_all_matter(model):
    paint = partial(model.generate, sampler=Euler(3))
    base = paint(["red"], seeds=[0])
    for other in (
        paint(["red"], seeds=[1]),
        paint(["blue"], seeds=[0]),
        paint(["red"], seeds=[0], guidance_scale=4.0),
    ):
        assert not torch.allclose(other, base, atol=1e-3)


def test_guidance_scale_0_paints_the_null_caption(model):
    paint = partial(model.generate, seeds=[0], sampler=Euler(3))
    torch.testing.assert_close(paint(["red"], guidance_scale=0.0), paint([""]))
    torch.testing.assert_close(paint(["red"], guidance_scale=0.0, negative_prompts=["blue"]), paint(["blue"]))


@pytest.mark.parametrize("tempered", [{"rescale": 0.7}, {"threshold": 0.99}])
def test_guidance_scale_0_is_tempered_as_every_other_is(model, tempered):
    paint = partial(model.generate, ["red"], seeds=[0], sampler=Euler(3))
    torch.testing.assert_close(paint(guidance_scale=0.0, **tempered), paint(guidance_scale=1e-9, **tempered))
    assert not torch.allclose(paint(guidance_scale=0.0, **tempered), paint(guidance_scale=0.0), atol=1e-3)


def test_guidance_is_null_plus_scale_times_the_difference(model):
    cond, null = model.encode_captions(["red"]), model.encode_captions(["a b c d e f g h i j k l"])
    x_t, t = torch.randn(1, 12, 8, 8), torch.tensor([0.7])
    with torch.no_grad():
        guided = model.denoiser(cond, null=null, guidance_scale=2.5).doubled.unclipped(
            torch.cat([x_t, x_t]), torch.cat([t, t])
        )
        c, n = (model.denoiser(part).unclipped(x_t, t) for part in (cond, null))
        torch.testing.assert_close(guided, torch.cat([c, n]), atol=1e-5, rtol=1e-4)
        whole = model.denoiser(cond, null=null, guidance_scale=2.5)(x_t, t)
    torch.testing.assert_close(whole, (n + 2.5 * (c - n)).clamp(-1, 1), atol=1e-5, rtol=1e-4)


def test_a_plain_denoiser_costs_one_row_per_image(model):
    seen = []
    handle = model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model.generate(["red"], seeds=[0], sampler=Euler(2), guidance_scale=1.0)
    model.generate(["red"], seeds=[0], sampler=Euler(2), guidance_scale=2.0)
    handle.remove()
    assert seen == [1, 1, 2, 2]


def test_the_callback_sees_every_step_of_every_batch(model):
    seen = []
    model.generate(
        PROMPTS,
        seeds=range(4),
        sampler=Euler(3),
        batch_size=2,
        callback=lambda i, t, x_t, x_0_hat: seen.append((i, len(x_t))),
    )
    assert seen == [(0, 2), (1, 2), (2, 2)] * 2


def test_a_prompt_of_10000_characters_is_cut_and_reported(caplog):
    model = toy_model()
    with caplog.at_level(logging.WARNING):
        images = model.generate(["x" * 10_000], seeds=[0], sampler=Euler(1))
    assert torch.isfinite(images).all()
    assert "at most 16" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"prompts": []}, "nothing to paint"),
        ({"seeds": [1, 2]}, "1 prompts came with 2 seeds"),
        ({"negative_prompts": ["a", "b"]}, "2 negative prompts"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seeds": [-1]}, "seed -1"),
    ],
)
def test_wrong_requests_are_refused_in_a_sentence(model, wrong, says):
    request = {"prompts": ["red"], "seeds": [0], "sampler": Euler(1)} | wrong
    with pytest.raises(UserError, match=says):
        model.generate(**request)


def test_a_prompt_that_is_no_text_is_refused():
    with pytest.raises(UserError, match="a prompt is text, and 3 is not"):
        _check_request([3], [0], None, 1)


# ---------------------------------------------------------------------- parts that fit


def rebuilt(model: TextToImage, **changes) -> TextToImage:
    parts = {name: getattr(model, name) for name in ("backbone", "schedule", "prediction", "text_encoder", "codec")}
    return TextToImage(**(parts | {"image_size_px": 16} | changes))


def test_a_backbone_of_other_sizes_is_refused_naming_both_numbers(model):
    net = {"channels": 12, "sample_size": 8, "cross_attention_dim": 24, "pooled_dim": 16}
    backbone = UNet(**net, block_channels=[8, 16], attention_sides=[4], head_channels=8, norm_groups=4)
    with pytest.raises(UserError, match=r"cross_attention_dim=24.*need 16"):
        rebuilt(model, backbone=backbone)
    with pytest.raises(UserError, match=r"channels=12.*need 3"):
        rebuilt(model, codec=Pixel())
    with pytest.raises(UserError, match=r"sample_size=8.*need 16"):
        rebuilt(model, image_size_px=32)


def test_smaller_pictures_are_trained_on_under_a_schedule_moved_along(model):
    """Half the side, half the noise at each time; the size painted at keeps its own."""
    model.check_size(16)
    model.check_size(8)
    with pytest.raises(UserError, match=r"6 px do not fit UNet and Unshuffle2, which take multiples of 4 px"):
        model.check_size(6)
    assert model.schedule_of(torch.zeros(1, 12, 8, 8)) is model.schedule
    t = torch.tensor([0.5])
    alpha, sigma = model.schedule_of(torch.zeros(1, 12, 4, 4)).alpha_sigma(t)
    whole_alpha, whole_sigma = model.schedule.alpha_sigma(t)
    torch.testing.assert_close(sigma / alpha, whole_sigma / whole_alpha / 2)


def test_an_odd_image_under_unshuffle_is_refused(model):
    with pytest.raises(UserError, match="image_size_px=17 is not a multiple of 2"):
        rebuilt(model, image_size_px=17)


def test_epsilon_under_zero_terminal_snr_is_refused_with_the_reason(model):
    from diffusion_art.diffusion.denoiser import Epsilon

    with pytest.raises(UserError, match="terminal SNR is zero"):
        rebuilt(model, schedule=CosineSchedule(), prediction=Epsilon())


# ---------------------------------------------------------------------- weights


def test_weights_round_trip_by_name():
    a, b = toy_model(0), toy_model(1)
    b.load_trainable_state(a.trainable_state())
    paint = {"prompts": ["red"], "seeds": [0], "sampler": Euler(2)}
    assert torch.equal(a.generate(**paint), b.generate(**paint))


def test_weights_of_another_model_are_refused_by_name_and_shape(model):
    state = dict(model.trainable_state())
    first = next(iter(state))
    with pytest.raises(UserError, match=r"1 are missing .*conv_in"):
        model.load_trainable_state({k: v for k, v in state.items() if k != first})
    with pytest.raises(UserError, match=r"conv_in.*shape \[1\]"):
        model.load_trainable_state(state | {first: torch.zeros(1)})


def test_a_frozen_text_tower_stays_out_of_the_weights(tmp_path):
    folder = tiny_clip(tmp_path / "clip")
    model = toy_model(
        text_encoder={
            "_target_": "diffusion_art.models.text_encoder.OpenClipPretrained",
            "model": f"local-dir:{folder}",
        }
    )
    assert {name.split(".")[0] for name in model.trainable_state()} == {"backbone"}
    assert {name.split(".")[0] for name in model.state_dict()} == {"backbone"}
    assert model.generate(["red"], seeds=[0], sampler=Euler(1), guidance_scale=2.0).shape == (1, 3, 16, 16)


def test_a_network_that_is_no_backbone_is_refused():
    with pytest.raises(UserError, match=r"makes a Conv2d, which cannot be one: .*backbone\.Backbone"):
        TextToImage(
            backbone=lambda **agreed: torch.nn.Conv2d(3, 3, 1),
            schedule=CosineSchedule(),
            prediction=toy_model().prediction,
            text_encoder=toy_model().text_encoder,
            codec=Pixel(),
            image_size_px=16,
        )
