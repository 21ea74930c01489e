#!/usr/bin/env bash
# diffusers 0.42.1, torch 2.14.1: the guiders of modular pipelines lead away from a network that is made worse: `SmoothedEnergyGuidance` blurs its queries,
# `PerturbedAttentionGuidance` takes its attention away, `SkipLayerGuidance` leaves layers out. One would guess that each does so, alone or beside a negative
# prompt. `SmoothedEnergyGuidance` never does: the call for the worse network is made with the network as it is, so its term is exactly 0, and the picture is
# that of classifier-free guidance, for half as much time again. The other two do so only where the negative prompt has its call too. Alone (`guidance_scale=1`,
# as for a network that was distilled) no layer is touched and the call is made with the negative prompt: what is painted is classifier-free guidance at their
# own scale, which had just been turned off. Nothing is said. No setting repairs the first one; the other two are had alone with `guidance_scale=1.0001`.
# Seen: how far the guided answer is from that of classifier-free guidance at the scale named, as a share of its size: from 7.5 with `guidance_scale=7.5`:
# smoothed energy 0.0000, perturbed attention 0.2257, skip layer 0.1395, with 3 calls each; from 2.8 with `guidance_scale=1`: 0.0000 for all three, with 2 calls
# each; with 1.0001: perturbed attention 0.3779, skip layer 0.3088.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 diffusers==0.42.1 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import diffusers
import torch

diffusers.utils.logging.set_verbosity_error()
STEP, STEPS, OWN = 2, 20, 2.8
LAYERS = {"indices": [0], "fqn": "mid_block.attentions.0.transformer_blocks"}
SCORES = {"skip_attention": False, "skip_attention_scores": True, "skip_ff": False}
SIZES = {"block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 8, "norm_num_groups": 8}
BLOCKS = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}


def drawn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def worse(scale):
    """The three guiders, with all that they can touch switched on."""
    smooth = diffusers.guiders.smoothed_energy_guidance.SmoothedEnergyGuidanceConfig(**LAYERS)
    scores, skip = diffusers.LayerSkipConfig(**LAYERS, **SCORES), diffusers.LayerSkipConfig(**LAYERS)
    return {
        "smoothed energy": diffusers.SmoothedEnergyGuidance(guidance_scale=scale, seg_guidance_scale=OWN, seg_guidance_config=smooth),
        "perturbed attention": diffusers.PerturbedAttentionGuidance(guidance_scale=scale, perturbed_guidance_scale=OWN, perturbed_guidance_config=scores),
        "skip layer": diffusers.SkipLayerGuidance(guidance_scale=scale, skip_layer_guidance_scale=OWN, skip_layer_config=skip),
    }


@torch.no_grad()
def guided(guider):
    """One step as the modular pipelines make it: how many calls, and the guided answer."""
    guider.set_state(step=STEP, num_inference_steps=STEPS, timestep=torch.tensor(900))
    batches = guider.prepare_inputs({"encoder_hidden_states": (drawn(1, 8, 32, seed=1), drawn(1, 8, 32, seed=2))})
    for batch in batches:
        guider.prepare_models(net)
        batch.noise_pred = net(drawn(1, 4, 16, 16, seed=3), 900, encoder_hidden_states=batch.encoder_hidden_states, return_dict=False)[0]
        guider.cleanup_models(net)
    return len(batches), guider(batches).pred


print(*(f"{name} {version(name)}" for name in ("diffusers", "torch")))
torch.manual_seed(0)
net = diffusers.UNet2DConditionModel(**SIZES, **BLOCKS).eval()
for scale, plain in ((7.5, 7.5), (1.0, OWN)):
    _, wanted = guided(diffusers.ClassifierFreeGuidance(guidance_scale=plain))
    for name, guider in worse(scale).items():
        calls, found = guided(guider)
        apart = ((found - wanted).norm() / wanted.norm()).item()
        print(f"{name}, guidance_scale={scale}: {calls} calls, {apart:.4f} from plain guidance at {plain}")
        dead = scale == 1 or name == "smoothed energy"
        assert (apart < 1e-5) if dead else apart > 0.01, (name, scale, apart)
        assert calls == (2 if scale == 1 else 3), calls
_, wanted = guided(diffusers.ClassifierFreeGuidance(guidance_scale=OWN))
for name in ("perturbed attention", "skip layer"):
    _, found = guided(worse(1.0001)[name])
    apart = ((found - wanted).norm() / wanted.norm()).item()
    print(f"{name}, guidance_scale=1.0001: {apart:.4f} from plain guidance at {OWN}")
    assert apart > 0.01, (name, apart)
PY
