#!/usr/bin/env bash
# transformers 5.24.0, torch 2.13.0: CLIP's pooled vector is its state at the end of the text. Textual inversion adds a token for a
# style, and the new token gets the next free id. One would guess that the end is found by `eos_token_id`. It is for most values;
# but for 2, which is what the config of OpenAI's published CLIP says, the pooled vector is taken at the highest id of the caption.
# That was the end token as long as nothing was added. A caption with the new token is pooled at the new token instead, with no
# word, and what follows that token plays no part in a causal tower: two captions that differ after it have one pooled vector.
# SDXL paints with such a vector. Naming the end token in the config repairs it. The tower here is small and has random weights.
# Seen: eos_token_id=2: pooled at token 2 of 10, the added one, and the captions are equal; eos_token_id=98: at 4, and they differ.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$work/venv/bin/python" - <<'PY'
import torch
from transformers import CLIPTextConfig, CLIPTextModel

START, END = 97, 98  # the last two of 99 ids, as in CLIP's vocabulary
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def pooled(named):
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=99, max_position_embeddings=10, bos_token_id=START, eos_token_id=named, pad_token_id=1, **SIZES
    )
    tower = CLIPTextModel(config).eval()
    tower.resize_token_embeddings(100, mean_resizing=False)  # as textual inversion does
    added = 99
    captions = torch.tensor([[START, 5, added, 7, *[END] * 6], [START, 5, added, 60, *[END] * 6]])
    with torch.no_grad():
        out = tower(input_ids=captions)
    where = [i for i in range(10) if torch.allclose(out.last_hidden_state[0, i], out.pooler_output[0], atol=1e-5)]
    return where, torch.allclose(*out.pooler_output, atol=1e-5)


for named, wanted in ((2, ([2], True)), (END, ([4], False))):
    where, equal = pooled(named)
    print(f"eos_token_id={named}: pooled at token {where[0]}, two captions that differ after it are", end=" ")
    print("equal" if equal else "different")
    assert (where, equal) == wanted, (named, where, equal)
PY
