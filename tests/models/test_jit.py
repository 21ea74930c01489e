from __future__ import annotations

import pytest
import torch

from diffusion_art.errors import UserError
from diffusion_art.models.jit import rotate, rotation
from diffusion_art.training.optim import parameter_groups
from tests.models.backbones import all_random, inputs, small_jit


@pytest.mark.parametrize("context_from", [0, 1, 2])
def test_its_middle_is_the_grid_of_patches_after_half_of_the_blocks(context_from):
    net = all_random(small_jit(depth=4, context_from=context_from))
    kept = []
    net.blocks[1].register_forward_hook(lambda module, inputs, out: kept.append(out))
    _, middle = net.with_map(*inputs(), "middle")
    assert torch.equal(middle[:, :, 1, 2], kept[0][:, -16:][:, 6])


def test_attention_depends_on_how_far_apart_positions_are_not_on_where_they_stand():
    q, k = torch.randn(2, 1, 1, 1, 16).expand(-1, -1, -1, 24, -1)
    turn = rotation(4, 6, 16, torch.device("cpu"))
    logits = (rotate(q, turn) @ rotate(k, turn).mT).reshape(4, 6, 4, 6)
    torch.testing.assert_close(logits[1:, 2:, 1:, 2:], logits[:-1, :-2, :-1, :-2], atol=1e-4, rtol=1e-4)
    assert logits[0, 0].std() > 0.01
    assert not torch.allclose(logits[0, 0, 1, 0], logits[0, 0, 0, 1])  # rows and columns turn different pairs


def test_muon_gets_the_matrices_of_the_blocks_and_adam_the_rest():
    net = small_jit()
    names = {id(p): name for name, p in net.named_parameters()}
    groups = parameter_groups(net, weight_decay=0.1)
    hidden = {names[id(p)].split(".")[-2] for p in groups[0]["params"]}
    assert hidden == {"qkv", "attention_out", "mlp_in", "mlp_out", "modulation", "out_modulation"}
    assert groups[0]["hidden"]
    outer = {names[id(p)] for p in groups[1]["params"]}
    assert {"to_patches.weight", "patch_embedding.0.weight", "blocks.0.modulation_embedding"} < outer


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"side 9.*patch_size=2"):
        small_jit(sample_size=9)
    with pytest.raises(UserError, match="width=40 does not divide into heads of head_channels=16"):
        small_jit(width=40)


@pytest.mark.parametrize(("depth", "context_from"), [(1, 1), (3, 3), (3, 5), (3, -1)])
def test_a_network_that_would_never_read_its_caption_is_refused(depth, context_from):
    with pytest.raises(UserError, match=f"context_from={context_from} leaves none of depth={depth} blocks to read"):
        small_jit(depth=depth, context_from=context_from)
