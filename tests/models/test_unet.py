from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from diffusion_art.accel import layers
from diffusion_art.errors import UserError
from diffusion_art.models.unet import Attention, UNet
from tests.models.backbones import all_random, inputs, small_unet


def test_few_positions_attend_by_the_plain_formula_and_many_by_the_fused_kernel(monkeypatch):
    net = all_random(small_unet(attention_sides=[8, 4]))
    answers = {}
    for limit in (0, 16, 64):
        monkeypatch.setattr(layers, "FEW_QUERIES", limit)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            answers[limit] = net(*inputs())
        calls = [event.key for event in profiled.events() if event.key == "aten::scaled_dot_product_attention"]
        assert len(calls) == {0: 14, 16: 6, 64: 0}[limit], limit
    for limit in (16, 64):
        torch.testing.assert_close(answers[limit], answers[0], atol=1e-4, rtol=1e-4)


def test_its_weights_are_those_of_diffusers_own_network_and_so_are_its_answers():
    net = all_random(small_unet())
    theirs = net.as_diffusers()
    x_t, t, cond = inputs()
    answer = theirs(x_t, 1000 * t, cond.tokens, encoder_attention_mask=cond.mask, class_labels=cond.pooled).sample
    torch.testing.assert_close(net(x_t, t, cond), answer, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attention_sides", [[4], [8]], ids=["attending middle", "plain middle"])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("place", ["middle", "up"])
def test_with_a_map_it_learns_the_same_bits(attention_sides, gradient_checkpointing, place):
    torch.manual_seed(0)
    net = small_unet(attention_sides=attention_sides, gradient_checkpointing=gradient_checkpointing, layers_per_block=2)
    all_random(net).train()
    gradients, kept = [], []
    block = net.net.mid_block if place == "middle" else net.net.up_blocks[0]
    block.register_forward_hook(lambda module, inputs, out: kept.append(out))
    for forward in (net, lambda *inputs: net.with_map(*inputs, place)[0]):
        net.zero_grad()
        (forward(*inputs()) - 1).square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in net.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    assert torch.equal(net.with_map(*inputs(), place)[1], kept[0])


def test_attention_stands_only_where_it_was_asked_for():
    def blocks(net):
        names = [name for name, module in net.net.named_modules() if isinstance(module, Attention)]
        return {".".join(name.split(".")[:2]) for name in names}

    assert blocks(small_unet()) == {"down_blocks.1", "up_blocks.0", "mid_block.attentions"}
    assert blocks(small_unet(attention_sides=[8])) == {"down_blocks.0", "up_blocks.1"}
    assert blocks(small_unet(attention_sides=None)) == blocks(small_unet(attention_sides=[4]))


def test_a_side_that_no_level_has_is_refused_with_the_sides_there_are():
    with pytest.raises(UserError, match=r"attention_sides=\[7\].*have 8, 4"):
        small_unet(attention_sides=[7])


def test_channels_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="block_channels=10 does not divide into norm_groups=4"):
        small_unet(block_channels=[8, 10])
    with pytest.raises(UserError, match="head_channels=0 must be at least 1"):
        small_unet(head_channels=0)


@pytest.mark.parametrize(("head_channels", "heads"), [(8, 3), (24, 1), (64, 1), (5, 4), (7, 3), (10, 2)])
def test_heads_are_as_narrow_as_asked_or_somewhat_wider(head_channels, heads):
    net = all_random(small_unet(block_channels=[8, 24], head_channels=head_channels))
    assert net.net.mid_block.attentions[0].transformer_blocks[0].attn1.heads == heads
    assert net(*inputs()).isfinite().all()


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
        net = small_unet(dropout=0.1, gradient_checkpointing=gradient_checkpointing)
        learned.append(_learned(all_random(net).train()))
    (plain, all_kept), (recomputed, few_kept) = learned
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)
    assert few_kept < 0.6 * all_kept


@pytest.mark.parametrize("side", [2, 4, 16, 24])
def test_latents_of_other_sides_are_taken_with_attention_at_the_same_depth(side):
    net = all_random(small_unet())
    assert net.side_multiple == 2
    _, t, cond = inputs()
    positions = set()
    for name, module in net.named_modules():
        if name.endswith("attn1"):
            module.register_forward_pre_hook(lambda _, inputs: positions.add(inputs[0].shape[1]))
    assert net(torch.randn(3, 4, side, side), t, cond).shape == (3, 4, side, side)
    assert positions == {(side // 2) ** 2}
