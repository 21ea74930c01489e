#!/usr/bin/env bash
# diffusers 0.42.1, torch 2.13.0: `UNet2DConditionModel` takes `encoder_attention_mask`, which is False at the tokens that must not be seen.
# One would guess that a mask of nothing but False hides the whole caption, as is handy for the captions dropped for guidance. It hides
# nothing: -10,000 is added to each token's logit, and softmax takes away what all logits have in common. The output is that of no mask at
# all, so a network trained with captions "dropped" in this way has seen every one, and guidance has nothing to guide away from. A mask
# with a single True does what it says. Keep one token, such as the start, or put the states of an empty caption in place.
# Seen: from the output without a mask: all False 0.00006 apart, only the first token 0.12; two captions under a mask of False differ.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 numpy
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

torch.manual_seed(0)
unet = UNet2DConditionModel(
    sample_size=8,
    in_channels=3,
    out_channels=3,
    block_out_channels=(32,),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
    cross_attention_dim=16,
    attention_head_dim=4,
).eval()
x, caption, other = torch.randn(1, 3, 8, 8), torch.randn(1, 5, 16), torch.randn(1, 5, 16)


@torch.no_grad()
def painted(states, mask):
    return unet(x, 10, encoder_hidden_states=states, encoder_attention_mask=mask).sample


def apart(a, b):
    return (a - b).abs().max().item()


hidden = torch.zeros(1, 5, dtype=torch.bool)
first = torch.tensor([[True, False, False, False, False]])
nothing = apart(painted(caption, None), painted(caption, hidden))
one = apart(painted(caption, None), painted(caption, first))
captions = apart(painted(caption, hidden), painted(other, hidden))
print(f"from no mask: all False {nothing:.5f}, only the first token {one:.5f}")
print(f"two captions, both under a mask of False: {captions:.5f} apart")
assert nothing < 1e-3 < 1e-2 < min(one, captions), (nothing, one, captions)
PY
