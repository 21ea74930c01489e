#!/usr/bin/env bash
# mmdit 0.3.0, torch 2.14.1: `MMDiT(qk_rmsnorm=True)` asks for what Stable Diffusion 3 owes its steady training to: the queries and keys of each head are
# brought to one length, so that attention cannot grow without bound. One would guess that it is done, as by `JointAttention(qk_rmsnorm=True)` of the same
# package. The block takes the setting and does not hand it on: the network has the same weights with it and without it, and gives the same answer. Nothing is
# said, and it is noticed late in a training, when attention has grown to 0 and 1 and the loss jumps. Put `JointAttention(dim_inputs=..., dim_head=...,
# heads=..., qk_rmsnorm=True)` in the place of each `block.joint_attn`.
# Seen: weights of a block: 14 without the setting, 14 with it, 18 with attention put in by hand; answers without and with the setting 0.00 apart; where queries
# and keys are 30 times as long, the answer moves by 0.38 of its size with the setting, and by 0.00 by hand.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 mmdit==0.3.0 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from mmdit import MMDiT
from mmdit.mmdit_pytorch import JointAttention

TIMES = 30


def network(by_hand=False, **settings):
    """A network of two blocks, always of the same weights."""
    torch.manual_seed(0)
    net = MMDiT(depth=2, dim_text=32, dim_image=32, dim_cond=16, dim_head=16, heads=2, num_residual_streams=1, **settings).eval()
    for block in net.blocks:
        if by_hand:
            attention = JointAttention(dim_inputs=(32, 32), dim_head=16, heads=2, qk_rmsnorm=True)
            attention.load_state_dict(block.joint_attn.state_dict(), strict=False)
            block.joint_attn = attention.eval()
    return net


@torch.no_grad()
def answer(net):
    draw = torch.Generator().manual_seed(1)
    text, image, cond = (torch.randn(shape, generator=draw) for shape in ((1, 8, 32), (1, 16, 32), (1, 16)))
    return net(text_tokens=text, image_tokens=image, time_cond=cond)[1]


def moved(net):
    """How far the answer moves where queries and keys are so many times as long, as a share of its size."""
    before = answer(net)
    for block in net.blocks:
        for layer in block.joint_attn.to_qkv:
            layer.weight.data[: 2 * len(layer.weight) // 3] *= TIMES
    return ((answer(net) - before).norm() / before.norm()).item()


print(*(f"{name} {version(name)}" for name in ("mmdit", "torch")))
plain, asked, by_hand = network(), network(qk_rmsnorm=True), network(by_hand=True)
counts = [len(net.blocks[0].state_dict()) for net in (plain, asked, by_hand)]
apart = (answer(plain) - answer(asked)).abs().max().item()
print(f"weights of a block: {counts[0]} without the setting, {counts[1]} with it, {counts[2]} by hand; answers without and with it {apart:.2f} apart")
moves = [moved(net) for net in (asked, by_hand)]
print(f"queries and keys {TIMES} times as long: the answer moves by {moves[0]:.2f} of its size with the setting, {moves[1]:.2f} by hand")
assert counts[0] == counts[1] < counts[2] and apart == 0, (counts, apart)
assert moves[0] > 0.05 and moves[1] < 1e-4, moves
PY
