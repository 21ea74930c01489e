"""What `Backbone` promises, asked of every kind of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from diffusion_art.errors import UserError
from diffusion_art.tensors import Conditioning
from tests.models.backbones import BACKBONES, all_random, inputs

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(params=BACKBONES)
def name(request) -> str:
    return request.param


@pytest.fixture
def make(name):
    torch.manual_seed(0)
    return BACKBONES[name]


@pytest.fixture
def net(make):
    return all_random(make())


@pytest.fixture
def asked(net):
    return inputs(side=net.sample_size)


def test_an_untrained_network_answers_zero_and_soon_every_weight_learns(make):
    net = make()
    x_t, t, cond = inputs(side=net.sample_size)
    out = net(x_t, t, cond)
    assert out.shape == x_t.shape
    assert not out.any()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(3):  # JiT's gates open after its last map has moved, and its blocks after the gates
        optimizer.zero_grad()
        (net(x_t, t, cond) - x_t).square().mean().backward()
        optimizer.step()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("part", ["x_t", "t", "tokens", "pooled"])
def test_everything_it_is_told_matters(net, asked, part):
    x_t, t, cond = asked
    before = net(x_t, t, cond)
    if part == "x_t":
        x_t = x_t + 1
    elif part == "t":
        t = 1 - t
    else:
        cond = Conditioning(**{**vars(cond), part: getattr(cond, part).flip(0)})
    change = (net(x_t, t, cond) - before).abs().amax(dim=(1, 2, 3))
    assert (change > 1e-3 * before.abs().max()).sum() >= 2  # one row of three stays what it was when rows are flipped


def test_padding_tokens_are_never_attended_to(net, asked):
    x_t, t, cond = asked
    cond.mask[1, 5:] = False
    padded = cond.pad_to(16)
    padded.tokens[~padded.mask] = 1e3
    torch.testing.assert_close(net(x_t, t, padded), net(x_t, t, cond), **CLOSE)
    alone = Conditioning(cond.tokens[1:2, :5], cond.mask[1:2, :5], cond.pooled[1:2])
    torch.testing.assert_close(net(x_t[1:2], t[1:2], alone), net(x_t, t, cond)[1:2], **CLOSE)


def test_rows_do_not_mix(net, asked):
    x_t, t, cond = asked
    rows = [net(x_t[i : i + 1], t[i : i + 1], cond[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(rows), net(x_t, t, cond), **CLOSE)


def test_with_a_map_it_answers_the_same_bits(net, asked):
    for place, channels in net.maps.items():
        out, seen = net.with_map(*asked, place)
        assert torch.equal(out, net(*asked))
        side = net.sample_size // (1 if place == "up" else 2)
        assert seen.shape == (3, channels, side, side)
        assert seen.std(0).mean() > 1e-3


@pytest.mark.parametrize("side", [4, 16, 32])
def test_one_set_of_weights_takes_every_side_that_its_multiple_divides(net, side):
    assert side % net.side_multiple == 0
    x_t, t, cond = inputs(2, side=side)
    assert net(x_t, t, cond).shape == x_t.shape


def test_latents_that_do_not_divide_are_refused(make):
    with pytest.raises(UserError, match="side 9"):
        make(sample_size=9)


def test_runs_in_bfloat16_autocast(net, asked):
    plain = net(*asked)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(*asked)
    assert (out.float() - plain).square().mean() < 1e-3 * plain.square().mean()


def test_under_bfloat16_autocast_it_tells_times_apart_that_bfloat16_does_not(net, asked):
    """Autocast does not round the times; FSDP2's own policy does (findings/fsdp2_rounds_times.sh)."""
    x_t, _, cond = asked
    t = torch.tensor([0.9985, 0.9995])
    assert t.bfloat16().tolist() == [1, 1]
    with torch.autocast("cpu", torch.bfloat16):
        earlier, later = (net(x_t, time.expand(len(x_t)), cond) for time in t)
    assert not torch.equal(earlier, later)


@pytest.mark.slow
def test_the_compiler_sees_one_graph_and_the_same_answer(name):
    code = (
        "import torch; from tests.models.backbones import BACKBONES, inputs, all_random;"
        f"net = all_random(BACKBONES[{name!r}]()); x = inputs(side=net.sample_size);"
        "close = {'atol': 1e-4, 'rtol': 1e-4};"
        "compiled = torch.compile(net, backend='eager', fullgraph=True);"
        "torch.testing.assert_close(compiled(*x), net(*x), **close);"
        "compiled = torch.compile(net.with_map, backend='eager', fullgraph=True);"
        "[torch.testing.assert_close(compiled(*x, place), net.with_map(*x, place), **close) for place in net.maps]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # outside the shape checker
