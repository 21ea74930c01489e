#!/usr/bin/env bash
# open_clip_torch 3.3.0, torch 2.14.1: captions are padded to 77 tokens, and most are far shorter. One would guess that ids cut
# to the longest caption of a batch give the same text features for less work, since the tower is causal and reads its feature
# at the last real token. It raises: the causal mask keeps its full size. Only ids of the context length are taken.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 open_clip_torch==3.3.0
"$work/venv/bin/python" - <<'PY'
import open_clip
import torch

model = open_clip.create_model("ViT-B-32", pretrained=None).eval()
ids = open_clip.tokenize(["Claude Monet / Sunrise"])
longest = int(ids.argmax(dim=1).max()) + 1  # the end token has the highest id
print(f"ids of {ids.shape[1]} tokens, {longest} of them real")
with torch.no_grad():
    print("padded:", tuple(model.encode_text(ids).shape))
    try:
        model.encode_text(ids[:, :longest])
    except RuntimeError as error:
        print("cut to the longest:", error)
    else:
        raise SystemExit("cut ids are taken now")
PY
