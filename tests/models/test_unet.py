from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from diffusion_art.errors import UserError
from diffusion_art.models.unet import UNet
from diffusion_art.tensors import Conditioning

small = partial(
    UNet,
    channels=4,
    sample_size=8,
    cross_attention_dim=16,
    pooled_dim=12,
    block_channels=[8, 16],
    attention_sides=[4],
    head_channels=8,
    norm_groups=4,
)


def inputs(rows: int = 3, tokens: int = 8):
    generator = torch.Generator().manual_seed(0)
    randn = partial(torch.randn, generator=generator)
    cond = Conditioning(randn(rows, tokens, 16), torch.ones(rows, tokens, dtype=torch.bool), randn(rows, 12))
    return randn(rows, 4, 8, 8), torch.rand(rows, generator=generator), cond


def trained_a_little(net: UNet) -> UNet:
    torch.manual_seed(0)
    torch.nn.init.normal_(net.net.conv_out.weight)
    return net.eval()


def test_an_untrained_network_answers_zero_and_still_learns():
    net = small()
    x_t, t, cond = inputs()
    out = net(x_t, t, cond)
    assert out.shape == x_t.shape
    assert not out.any()
    (out - x_t).square().mean().backward()
    assert net.net.conv_out.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("part", ["x_t", "t", "tokens", "pooled"])
def test_everything_it_is_told_matters(part):
    net = trained_a_little(small())
    x_t, t, cond = inputs()
    before = net(x_t, t, cond)
    if part == "x_t":
        x_t = x_t + 1
    elif part == "t":
        t = 1 - t
    else:
        cond = Conditioning(**{**vars(cond), part: getattr(cond, part).flip(0)})
    assert not torch.allclose(net(x_t, t, cond), before, atol=1e-4)


@pytest.mark.parametrize("side", [8, 16], ids=["plain attention", "fused attention"])
def test_padding_tokens_are_never_attended_to(side):
    net = trained_a_little(small(sample_size=side, attention_sides=[side]))
    kind = AttnProcessor if side == 8 else AttnProcessor2_0
    assert {type(processor) for processor in net.net.attn_processors.values()} == {kind}
    _, t, cond = inputs()
    x_t = torch.randn(3, 4, side, side)
    padded = cond.pad_to(16)
    padded.tokens[:, 8:] = 1e3
    torch.testing.assert_close(net(x_t, t, padded), net(x_t, t, cond), atol=1e-4, rtol=1e-4)


def test_its_weights_are_those_of_diffusers_own_network_and_so_are_its_answers():
    net = trained_a_little(small())
    theirs = UNet2DConditionModel.from_config(net.net.config).eval()
    theirs.load_state_dict(net.net.state_dict())
    x_t, t, cond = inputs()
    answer = theirs(x_t, 1000 * t, cond.tokens, encoder_attention_mask=cond.mask, class_labels=cond.pooled).sample
    torch.testing.assert_close(net(x_t, t, cond), answer, atol=1e-4, rtol=1e-4)


def test_rows_do_not_mix():
    net = trained_a_little(small())
    x_t, t, cond = inputs()
    rows = [net(x_t[i : i + 1], t[i : i + 1], cond[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(rows), net(x_t, t, cond), atol=1e-5, rtol=1e-4)


def test_attention_stands_only_where_it_was_asked_for():
    blocks = {name.split(".")[0] + name.split(".")[1] for name in small().net.attn_processors}
    assert blocks == {"down_blocks1", "up_blocks0", "mid_blockattentions"}
    assert {name.split(".")[1] for name in small(attention_sides=[8]).net.attn_processors} == {"0", "1"}


def test_runs_in_bfloat16_autocast():
    net = trained_a_little(small())
    x_t, t, cond = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x_t, t, cond)
    torch.testing.assert_close(out.float(), net(x_t, t, cond), atol=0.5, rtol=0.1)


def test_a_side_that_no_level_has_is_refused_with_the_sides_there_are():
    with pytest.raises(UserError, match=r"attention_sides=\[7\].*have 8, 4"):
        small(attention_sides=[7])


def test_an_image_that_cannot_be_halved_is_refused():
    with pytest.raises(UserError, match="side 9"):
        small(sample_size=9)


def test_channels_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="block_channels=10 does not divide into norm_groups=4"):
        small(block_channels=[8, 10])


@pytest.mark.slow
def test_the_compiler_sees_one_graph_and_the_same_answer():
    code = (
        "import torch; from tests.models.test_unet import small, inputs, trained_a_little;"
        "net = trained_a_little(small()); x = inputs();"
        "compiled = torch.compile(net, backend='eager', fullgraph=True);"
        "torch.testing.assert_close(compiled(*x), net(*x))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # outside the shape checker


def _learned(net: UNet) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients, and how many bytes were kept for them."""
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    x_t, t, cond = inputs()
    torch.manual_seed(1)  # of dropout
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = (net(x_t, t, cond) - x_t).square().mean()
    loss.backward()
    return {name: p.grad for name, p in net.named_parameters()}, kept


def test_gradient_checkpointing_gives_the_same_bits_and_keeps_less():
    learned = []
    for gradient_checkpointing in (False, True):
        torch.manual_seed(0)
        net = small(dropout=0.1, gradient_checkpointing=gradient_checkpointing)
        learned.append(_learned(trained_a_little(net).train()))
    (plain, all_kept), (recomputed, few_kept) = learned
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)
    assert few_kept < 0.6 * all_kept


@pytest.mark.parametrize("side", [2, 4, 16, 24])
def test_latents_of_other_sides_are_taken_with_attention_at_the_same_depth(side):
    net = trained_a_little(small())
    assert net.side_multiple == 2
    _, t, cond = inputs()
    positions = set()
    for name, module in net.named_modules():
        if name.endswith("attn1"):
            module.register_forward_pre_hook(lambda _, inputs: positions.add(inputs[0].shape[1]))
    assert net(torch.randn(3, 4, side, side), t, cond).shape == (3, 4, side, side)
    assert positions == {(side // 2) ** 2}
