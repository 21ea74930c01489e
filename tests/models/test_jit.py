from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
import torch

from diffusion_art.errors import UserError
from diffusion_art.models import jit
from diffusion_art.models.jit import JiT, attention, rotate, rotation
from diffusion_art.tensors import Conditioning
from diffusion_art.training.optim import parameter_groups

small = partial(
    JiT,
    channels=4,
    sample_size=8,
    cross_attention_dim=16,
    pooled_dim=12,
    patch_size=2,
    width=32,
    depth=3,
    head_channels=16,
    bottleneck=8,
)


def inputs(rows: int = 3, tokens: int = 8, side: int = 8):
    generator = torch.Generator().manual_seed(0)
    randn = partial(torch.randn, generator=generator)
    cond = Conditioning(randn(rows, tokens, 16), torch.ones(rows, tokens, dtype=torch.bool), randn(rows, 12))
    return randn(rows, 4, side, side), torch.rand(rows, generator=generator), cond


def all_random(net: JiT) -> JiT:
    """No weight is zero any more, as after some training."""
    torch.manual_seed(0)
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.2)
    return net.eval()


def test_an_untrained_network_answers_zero_and_soon_every_weight_learns():
    net = small()
    x_t, t, cond = inputs()
    out = net(x_t, t, cond)
    assert out.shape == x_t.shape
    assert not out.any()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(3):  # the gates open after the last map has moved, and the blocks after the gates
        optimizer.zero_grad()
        (net(x_t, t, cond) - x_t).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("part", ["x_t", "t", "tokens", "pooled"])
def test_everything_it_is_told_matters_after_one_step_of_training(part):
    net = small()
    x_t, t, cond = inputs()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (net(x_t, t, cond) - x_t).square().mean().backward()
        optimizer.step()
    before = net(x_t, t, cond)
    if part == "x_t":
        x_t = x_t + 1
    elif part == "t":
        t = 1 - t
    else:
        cond = Conditioning(**{**vars(cond), part: getattr(cond, part).flip(0)})
    assert (net(x_t, t, cond) - before).abs().max() > 1e-5


def test_padding_tokens_are_never_attended_to():
    net = all_random(small())
    x_t, t, cond = inputs()
    cond.mask[1, 5:] = False
    padded = cond.pad_to(16)
    padded.tokens[~padded.mask] = 1e3
    torch.testing.assert_close(net(x_t, t, padded), net(x_t, t, cond), atol=1e-4, rtol=1e-4)
    alone = Conditioning(cond.tokens[1:2, :5], cond.mask[1:2, :5], cond.pooled[1:2])
    torch.testing.assert_close(net(x_t[1:2], t[1:2], alone), net(x_t, t, cond)[1:2], atol=1e-4, rtol=1e-4)


def test_rows_do_not_mix():
    net = all_random(small())
    x_t, t, cond = inputs()
    rows = [net(x_t[i : i + 1], t[i : i + 1], cond[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(rows), net(x_t, t, cond), atol=1e-4, rtol=1e-4)


def test_attention_depends_on_how_far_apart_positions_are_not_on_where_they_stand():
    q, k = torch.randn(2, 1, 1, 1, 16).expand(-1, -1, -1, 24, -1)
    turn = rotation(4, 6, 16, torch.device("cpu"))
    logits = (rotate(q, turn) @ rotate(k, turn).mT).reshape(4, 6, 4, 6)
    torch.testing.assert_close(logits[1:, 2:, 1:, 2:], logits[:-1, :-2, :-1, :-2], atol=1e-4, rtol=1e-4)
    assert logits[0, 0].std() > 0.01
    assert not torch.allclose(logits[0, 0, 1, 0], logits[0, 0, 0, 1])  # rows and columns turn different pairs


@pytest.mark.parametrize("masked", [False, True])
def test_the_plain_formula_of_attention_is_the_fused_one(masked, monkeypatch):
    q, k, v = torch.randn(3, 2, 3, 7, 8)
    bias = torch.zeros(2, 1, 1, 7).masked_fill(torch.rand(2, 1, 1, 7) > 0.5, float("-inf")) if masked else None
    if bias is not None:
        bias[..., -1] = 0
    plain = attention(q, k, v, bias)
    monkeypatch.setattr(jit, "PLAIN_ATTENTION_TOKENS", 0)
    torch.testing.assert_close(plain, attention(q, k, v, bias))


@pytest.mark.parametrize("side", [4, 16, 32])
def test_one_set_of_weights_paints_at_any_side(side):
    net = all_random(small())
    x_t, t, cond = inputs(2, side=side)
    assert net(x_t, t, cond).shape == x_t.shape


def test_runs_in_bfloat16_autocast():
    net = all_random(small())
    x_t, t, cond = inputs()
    plain = net(x_t, t, cond)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x_t, t, cond)
    assert (out.float() - plain).square().mean() < 1e-3 * plain.square().mean()


def test_muon_gets_the_matrices_of_the_blocks_and_adam_the_rest():
    net = small()
    names = {id(p): name for name, p in net.named_parameters()}
    groups = parameter_groups(net.named_parameters(), weight_decay=0.1)
    hidden = {names[id(p)].split(".")[-2] for p in groups[0]["params"]}
    assert hidden == {"qkv", "attention_out", "mlp_in", "mlp_out", "modulation", "out_modulation"}
    assert groups[0]["hidden"]
    outer = {names[id(p)] for p in groups[1]["params"]}
    assert {"to_patches.weight", "patch_embedding.0.weight", "blocks.0.modulation_embedding"} < outer


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"side 9.*patch_size=2"):
        small(sample_size=9)
    with pytest.raises(UserError, match="width=40 does not divide into heads of head_channels=16"):
        small(width=40)


@pytest.mark.slow
def test_the_compiler_sees_one_graph_and_the_same_answer():
    code = (
        "import torch; from tests.models.test_jit import small, inputs, all_random;"
        "net = all_random(small()); x = inputs();"
        "compiled = torch.compile(net, backend='eager', fullgraph=True);"
        "torch.testing.assert_close(compiled(*x), net(*x))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # outside the shape checker
