#!/usr/bin/env bash
# diffusers 0.42.1, peft 0.21.2, torch 2.13.0: a LoRA is trained with peft, `get_peft_model_state_dict` gives its weights, and a pipeline's `save_lora_weights` writes
# them. One would guess that a LoRA which is loaded from that file does what it did in training. Its strength is alpha / rank, and neither of the two notes
# alpha: it is taken for the rank when the file is read, so the strength is 1. A LoRA that was trained with rank 16 and alpha 1 acts 16 times as strongly,
# and one with alpha 32 half as strongly. Nothing is said. With alpha equal to the rank, as in the examples, nothing can be seen.
# `unet_lora_adapter_metadata=` of the same call writes alpha too, and so does the network's own `save_lora_adapter`.
# Seen: rank 16, alpha 1 and 32: strength in training 0.0625, 2; loaded 1, 1; with the metadata, and with `save_lora_adapter`, 0.0625, 2.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 peft==0.21.2 transformers==5.24.0 numpy
cd "$work"
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TRANSFORMERS_VERBOSITY=error DIFFUSERS_VERBOSITY=error venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict

RANK = 16
torch.manual_seed(0)
x, caption = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 16)


def unet():
    torch.manual_seed(0)
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    sizes = {"block_out_channels": (32,), "layers_per_block": 1, "attention_head_dim": 8, "norm_num_groups": 8}
    return UNet2DConditionModel(sample_size=8, cross_attention_dim=16, **blocks, **sizes).eval()


def strength(net):
    return {scale for module in net.modules() if hasattr(module, "lora_A") for scale in module.scaling.values()}.pop()


@torch.no_grad()
def changed(net):
    """How far the LoRA moves what the network paints."""
    return (net(x, 10, encoder_hidden_states=caption).sample - unet()(x, 10, encoder_hidden_states=caption).sample).norm().item()


def loaded(folder):
    net = unet()
    weights, alphas, notes = StableDiffusionPipeline.lora_state_dict(folder, return_lora_metadata=True)
    StableDiffusionPipeline.load_lora_into_unet(weights, network_alphas=alphas, unet=net, metadata=notes)
    return net


print(*(f"{name} {version(name)}" for name in ("diffusers", "peft", "torch")))
for alpha in (1, 32):
    trained = unet()
    trained.add_adapter(LoraConfig(r=RANK, lora_alpha=alpha, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    torch.manual_seed(1)
    for name, weights in trained.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(weights, std=0.1)
    layers, notes = get_peft_model_state_dict(trained), trained.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(f"plain-{alpha}", unet_lora_layers=layers)
    StableDiffusionPipeline.save_lora_weights(f"noted-{alpha}", unet_lora_layers=layers, unet_lora_adapter_metadata=notes)
    trained.save_lora_adapter(f"own-{alpha}")
    own = unet()
    own.load_lora_adapter(f"own-{alpha}", prefix=None, weight_name="pytorch_lora_weights.safetensors")
    nets = {"training": trained, "loaded": loaded(f"plain-{alpha}")}
    nets |= {"with the metadata": loaded(f"noted-{alpha}"), "save_lora_adapter": own}
    found = {name: (strength(net), round(changed(net), 4)) for name, net in nets.items()}
    for name, (scale, change) in found.items():
        print(f"rank {RANK}, alpha {alpha}, {name}: strength {scale:g}, moves the estimate by {change}")
    wrong = found.pop("loaded")
    assert len(set(found.values())) == 1 and found["training"][0] == alpha / RANK and wrong[0] == 1, (found, wrong)
    times = wrong[1] / found["training"][1]
    assert times > 3 if alpha < RANK else times < 0.8, (found, wrong)
PY
