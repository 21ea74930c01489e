#!/usr/bin/env bash
# dalle2-pytorch 1.15.6, torch 2.14.1: `DiffusionPrior` learns to make image embeddings of CLIP from texts. Embeddings of length 1 are too short for its noise, so it
# multiplies them by `image_embed_scale`, the root of their width. One would guess that it does so to a copy. It multiplies the tensor that is handed in, in place.
# Where a loop takes slices of embeddings that lie in memory, the collection itself grows: 28 times at a width of 768 in the first epoch, and 28 times more in each
# after it. A validation set that is looked at twice is another one the second time, and so are embeddings that are saved after a step. Angles stay as they are, so
# measures by the cosine notice nothing, and nothing is said. Batches of a `DataLoader` with the default collation are copies and so are right. Hand in
# `embeddings[i:j].clone()`.
# Seen: width 64, length of the embeddings after 0, 1, 2, 3 epochs of slices: 1, 8, 64, 512; of clones 1 each; loss of one batch at one seed, asked for twice: 1.34,
# 64.44.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 dalle2-pytorch==1.15.6 numpy
cd "$work" && HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version

import torch
from dalle2_pytorch import DiffusionPrior, DiffusionPriorNetwork

WIDTH, TOTAL, BATCH, EPOCHS = 64, 64, 16, 3


def unit(count):
    return torch.nn.functional.normalize(torch.randn(count, WIDTH), dim=-1)


torch.manual_seed(0)
net = DiffusionPriorNetwork(dim=WIDTH, depth=1, dim_head=16, heads=2, num_timesteps=100)
prior = DiffusionPrior(net=net, image_embed_dim=WIDTH, timesteps=100, condition_on_text_encodings=False)
print("dalle2-pytorch", version("dalle2-pytorch"), "torch", version("torch"))
for name in ("slices", "clones"):
    texts, pictures = unit(TOTAL), unit(TOTAL)
    before, lengths = pictures.clone(), [1.0]
    for _ in range(EPOCHS):
        for start in range(0, TOTAL, BATCH):
            batch = pictures[start : start + BATCH]
            prior(text_embed=texts[start : start + BATCH], image_embed=batch.clone() if name == "clones" else batch)
        lengths.append(pictures.norm(dim=-1).mean().item())
    angle = torch.nn.functional.cosine_similarity(pictures, before).min().item()
    print(f"{name}: length of the embeddings after each epoch {[round(length, 2) for length in lengths]}, cosine to what they were {angle:.3f}")
    expected = [1.0 if name == "clones" else WIDTH ** (epoch / 2) for epoch in range(EPOCHS + 1)]
    assert all(abs(a / b - 1) < 1e-3 for a, b in zip(lengths, expected, strict=True)), (lengths, expected)
texts, pictures = unit(BATCH), unit(BATCH)
losses = []
for _ in range(2):
    torch.manual_seed(0)
    losses.append(prior(text_embed=texts, image_embed=pictures).item())
print(f"loss of one batch at one seed, asked for twice: {losses[0]:.2f}, {losses[1]:.2f}")
assert losses[1] > 10 * losses[0], losses
PY
