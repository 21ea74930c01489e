#!/usr/bin/env bash
# diffusers 0.42.1, torch 2.14.1: `SkipLayerGuidance` and `apply_layer_skip` call the network with some blocks left out. One would guess that a block that is
# left out hands on what came in. It does so in the order picture, text, and the double-stream blocks of Flux and Flux 2 give text, picture. So behind such a
# block the text stands in the place of the picture and the picture in the place of the text, in all blocks that follow, and the answer is cut out of the wrong
# tokens. A second one puts that right again, a third does not. The shapes fit, so nothing is said: what guidance leads away from is not a slightly worse
# network but one that was shown the wrong thing. With Flux 2 leave out blocks of the other stack, `single_transformer_blocks`, or an even number of these.
# Seen: a small Flux 2 with blocks that do nothing, so that the answer should not change: one double-stream block left out: it changes by 1.23 of its size; two:
# 0.00; one single-stream block: 0.00.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 diffusers==0.42.1 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import diffusers
import torch
from diffusers.hooks import apply_layer_skip
from diffusers.hooks.hooks import HookRegistry

TEXT, PICTURE = 8, 16
SIZES = {"in_channels": 4, "num_layers": 4, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 32}
WIDTHS = {"timestep_guidance_channels": 16, "axes_dims_rope": (4, 4, 4, 4), "guidance_embeds": False}


def drawn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def answer():
    places = {"img_ids": torch.zeros(1, PICTURE, 4), "txt_ids": torch.zeros(1, TEXT, 4)}
    given = {"hidden_states": drawn(1, PICTURE, 4, seed=1), "encoder_hidden_states": drawn(1, TEXT, 32, seed=2), "timestep": torch.tensor([0.9])}
    return net(**given, **places, return_dict=False)[0]


def change(stack, blocks):
    """How far the answer with these blocks left out is from that with them, as a share of its size."""
    wanted = answer()
    apply_layer_skip(net, diffusers.LayerSkipConfig(indices=blocks, fqn=stack))
    found = answer()
    for block in blocks:
        registry = HookRegistry.check_if_exists_or_initialize(getattr(net, stack)[block])
        registry.remove_hook(next(iter(registry.hooks)), recurse=False)
    return ((found - wanted).norm() / wanted.norm()).item()


print(*(f"{name} {version(name)}" for name in ("diffusers", "torch")))
torch.manual_seed(0)
net = diffusers.Flux2Transformer2DModel(**SIZES, **WIDTHS).eval()
for stack in ("transformer_blocks", "single_transformer_blocks"):
    for block in list(getattr(net, stack))[:2]:  # two blocks of each stack add nothing to what comes in
        for name, layer in block.named_modules():
            if isinstance(layer, torch.nn.Linear) and any(part in name for part in ("to_out", "to_add_out", "linear_out")):
                torch.nn.init.zeros_(layer.weight)
for stack, blocks, wrong in (("transformer_blocks", [0], True), ("transformer_blocks", [0, 1], False), ("single_transformer_blocks", [0], False)):
    found = change(stack, blocks)
    print(f"{len(blocks)} of {stack} that do nothing left out: the answer changes by {found:.2f} of its size")
    assert (found > 0.3) if wrong else found < 1e-4, (stack, blocks, found)
PY
