#!/usr/bin/env bash
# muse-maskgit-pytorch 0.3.5, torch 2.14.1: `MaskGit(cond_image_size=...)` makes the super-resolution half of Muse, which is to paint a large picture of a
# small one. One would guess that training it as documented, `superres_maskgit(images, texts=texts)`, makes the small pictures itself: the argument is said to
# be all that has to change. They are made and thrown away: the variable is never read again. The network is trained as if there were no small picture, and
# while it paints it is shown tokens of one, which it has never seen. So it repaints the caption at twice the size, and each sampled picture is another than
# its base. Nothing is said, and the loss falls. Give `cond_images=F.interpolate(images, cond_image_size)` in training.
# Seen: tokens of the small picture that the network is shown: in training as documented 0, with `cond_images` 16, while it paints 16. Loss as documented
# 5.8247, that of a model without `cond_image_size` to the last digit, and 5.8168 with `cond_images`.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 muse-maskgit-pytorch==0.3.5 transformers==5.24.0 numpy
# To be imported, the package reads this config of the hub for its width alone.
mkdir -p "$work/google/t5-v1_1-base" && echo '{"model_type": "t5", "d_model": 768}' >"$work/google/t5-v1_1-base/config.json"
cd "$work" && HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version

import torch
from muse_maskgit_pytorch import MaskGit, MaskGitTransformer, VQGanVAE

COUNT, SIZE, SMALL, CODES = 4, 32, 16, 256


def maskgit(**small):
    """A small model whose pictures are 64 tokens, and what each call of its network is shown of the small picture."""
    torch.manual_seed(0)
    vae = VQGanVAE(dim=16, layers=2, codebook_size=CODES, use_vgg_and_gan=False)
    net = MaskGitTransformer(num_tokens=CODES, seq_len=64, dim=32, depth=1, dim_head=16, heads=2, flash=False)
    net.encode_text = lambda texts: torch.ones(len(texts), 1, 768)  # T5 of one caption
    shown, forward = [], net.forward

    def recording(*args, conditioning_token_ids=None, **kwargs):
        shown.append(0 if conditioning_token_ids is None else conditioning_token_ids[0].numel())
        return forward(*args, conditioning_token_ids=conditioning_token_ids, **kwargs)

    net.forward = recording
    return MaskGit(vae=vae, transformer=net, image_size=SIZE, cond_drop_prob=0.0, **small), shown


def loss(model, images, **small):
    """The loss of one training step, of the same tokens hidden each time."""
    torch.manual_seed(1)
    return model(images, texts=["a picture"] * COUNT, **small).item()


print(*(f"{name} {version(name)}" for name in ("muse-maskgit-pytorch", "torch")))
images = torch.rand(COUNT, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
small = torch.nn.functional.interpolate(images, SMALL)
model, shown = maskgit(cond_image_size=SMALL)
documented = loss(model, images), shown.pop()
by_hand = loss(model, images, cond_images=small), shown.pop()
other, shown_other = maskgit()
base = loss(other, images), shown_other.pop()
shown.clear()
with torch.no_grad():
    model.generate(["a picture"] * COUNT, cond_images=small, cond_scale=1, timesteps=2)
print(f"training as documented: loss {documented[0]:.4f}, {documented[1]} tokens of the small picture shown; with cond_images {by_hand[0]:.4f}, {by_hand[1]}")
print(f"training of a model for small pictures alone, same weights: loss {base[0]:.4f}, {base[1]} tokens; painting: {sorted(set(shown))} tokens")
assert documented == base and documented[1] == 0, (documented, base)
assert by_hand[1] == 16 and by_hand[0] != documented[0] and set(shown) == {16}, (by_hand, shown)
PY
