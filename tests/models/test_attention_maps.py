"""Attention to a caption's words: shares that add up, of the right words and rows, and nothing changes by looking."""

from __future__ import annotations

import pytest
import torch

from diffusion_art.accel.layers import Attend, attention
from diffusion_art.models.attention_maps import attention_maps, word_maps
from diffusion_art.models.tokenizer import ClipTokenizer
from tests.fakes import JIT_CONFIG, toy_model
from tests.models.backbones import all_random, inputs, small_jit, small_unet


@pytest.mark.parametrize("make", [small_unet, small_jit])
def test_shares_add_up_and_padding_has_none(make):
    net = all_random(make())
    x_t, t, cond = inputs()
    cond.mask[:, 5:] = False
    plain = net(x_t, t, cond)
    with attention_maps(net, rows=3) as maps:
        assert torch.equal(net(x_t, t, cond), plain)
    net(x_t, t, cond)  # not seen any more
    assert len(maps.times) == 1
    seen = maps.mean()
    assert seen.shape == (3, 8, 8, 8)
    assert torch.equal(seen[:, 5:], torch.zeros(3, 3, 8, 8))
    total = seen.sum(1)
    if make is small_unet:
        torch.testing.assert_close(total, torch.ones_like(total))
    else:  # the rest goes to the picture's own tokens
        assert (total > 0).all()
        assert (total < 1).all()


def test_the_maps_are_the_weights_that_attention_gives_to_the_values_of_the_tokens():
    """With rows of the unit matrix for values, what attention answers are its weights."""
    net = all_random(small_unet())
    weights = []

    def ask(part, told, _):
        q, k, _, bias = told
        if bias is not None:
            values = torch.eye(k.shape[2]).expand(*k.shape[:2], -1, -1)
            weights.append(attention(q, k, values, bias).mean(1))

    for part in net.modules():
        if isinstance(part, Attend):
            part.register_forward_hook(ask)
    with attention_maps(net, rows=3) as maps:
        net(*inputs())
    coarse = torch.stack(weights).mean(0).mT.unflatten(2, (4, 4))  # b n l -> b l h w
    assert len(weights) > 2
    expected = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")
    torch.testing.assert_close(maps.mean(), expected)


@pytest.mark.parametrize("backbone", [None, JIT_CONFIG], ids=["unet", "jit"])
def test_of_a_guided_picture_the_rows_with_captions_are_recorded_at_each_step(backbone):
    from diffusion_art.diffusion.samplers.euler import Euler

    model = toy_model(**({"backbone": backbone} if backbone else {}))
    asked = {"seeds": [0, 1], "sampler": Euler(num_steps=3)}
    recorded = {}
    for scale in (1.0, 3.0):
        with attention_maps(model.backbone, rows=2) as maps:
            model.generate(["a red house", "blue"], guidance_scale=scale, **asked)
        assert maps.times == sorted(maps.times, reverse=True)
        assert len(maps.by_time) == 3
        recorded[scale] = maps.by_time[0]
    length = recorded[1.0].shape[1]
    torch.testing.assert_close(recorded[3.0][:, :length], recorded[1.0])  # at the first step x_t is the same


def test_another_batch_and_no_call_at_all_are_refused():
    net = all_random(small_unet())
    with attention_maps(net, rows=4) as maps, pytest.raises(ValueError, match=r"4 pictures is recorded, and .* 3 rows"):
        net(*inputs())
    with pytest.raises(ValueError, match="no attention was recorded"):
        maps.mean()


def test_words_are_found_among_the_tokens_and_their_maps_are_relative():
    tokenizer = ClipTokenizer(context_length=32, vocab_size=600)
    words = tokenizer.words("Vermillon Grün, 漢")
    assert [word for word, _ in words] == ["vermillon", "grün", ",", "漢"]
    spans = [span for _, span in words]
    assert spans[0].start == 1
    assert [span.start for span in spans[1:]] == [span.stop for span in spans[:-1]]
    assert spans[-1].stop == len(tokenizer.ids("Vermillon Grün, 漢")) - 1
    maps = torch.rand(32, 4, 4)
    seen = word_maps(maps, words)
    torch.testing.assert_close(seen.mean((1, 2)), torch.ones(4))
    torch.testing.assert_close(seen[1], maps[spans[1]].mean(0) / maps[spans[1]].mean())
    cut = ClipTokenizer(context_length=5, vocab_size=600).words("a b vermillon")
    assert [word for word, _ in cut] == ["a", "b"]
