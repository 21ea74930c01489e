#!/usr/bin/env bash
# peft 0.21.2, open_clip_torch 3.3.0, torch 2.14.1: LoRA for a text tower of open_clip, whose linear layers are called `out_proj`, `c_fc` and
# `c_proj`. One would guess that `LoraConfig(target_modules=["out_proj", "c_fc", "c_proj"])` adapts all three. `get_peft_model` puts an adapter at each, counts
# its parameters as trainable and says nothing. But the attention of open_clip is torch's `MultiheadAttention`, which reads
# `out_proj.weight` and never calls `out_proj`: those adapters get no gradient, do not train, and what is in them changes no output. A
# third of the adapters, and all that touch attention, are dead. With `out_proj` alone the loss has no gradient at all, which is an error; with the
# others beside it there is none. `target_modules=["attn", "c_fc", "c_proj"]` adapts attention too.
# Seen: of 6 adapters of 2 blocks 4 have a gradient; filling those of out_proj with numbers moves the features by 0. With attn all have one.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 open_clip_torch==3.3.0 peft==0.21.2 numpy
HF_HUB_OFFLINE=1 "$work/venv/bin/python" -W ignore - <<'PY'
import torch
from open_clip.model import CLIP
from peft import LoraConfig, get_peft_model

VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
TEXT = {"context_length": 16, "vocab_size": 100, "width": 64, "heads": 2, "layers": 2}
ids = torch.randint(1, 100, (4, 16), generator=torch.Generator().manual_seed(0))


def adapted(targets):
    """A text tower with adapters, after one backward pass: which of them have a gradient, by layer."""
    torch.manual_seed(0)
    clip = CLIP(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT)
    clip.visual = None  # the text tower alone
    net = get_peft_model(clip, LoraConfig(r=4, target_modules=targets))
    net.encode_text(ids).square().mean().backward()
    return net, {name: weight.grad is not None for name, weight in net.named_parameters() if "lora_B" in name}


def fill(net, layer):
    """How far the text features move when the adapters of `layer` get large numbers."""
    with torch.no_grad():
        before = net.encode_text(ids)
        for name, weight in net.named_parameters():
            if "lora_B" in name and layer in name:
                weight.fill_(1.0)
        return (net.encode_text(ids) - before).abs().max().item()


net, trained = adapted(["out_proj", "c_fc", "c_proj"])
dead = [name for name, has_gradient in trained.items() if not has_gradient]
print(f"out_proj, c_fc, c_proj: {len(trained)} adapters, {len(dead)} without a gradient, all of out_proj:", all("out_proj" in name for name in dead))
print("trainable, as peft counts:", net.get_nb_trainable_parameters()[0])
moved = {layer: round(fill(net, layer), 4) for layer in ("out_proj", "c_fc")}
print("the features move by, with adapters filled:", moved)
assert len(trained) == 6 and len(dead) == 2 and all("out_proj" in name for name in dead), trained
assert moved["out_proj"] == 0 and moved["c_fc"] > 0.01, moved
_, trained = adapted(["attn", "c_fc", "c_proj"])
print(f"attn, c_fc, c_proj: {len(trained)} adapters, without a gradient: {sum(not has for has in trained.values())}")
assert len(trained) == 8 and all(trained.values()), trained
PY
