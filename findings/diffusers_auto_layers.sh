#!/usr/bin/env bash
# diffusers 0.42.1, torch 2.14.1: `SkipLayerGuidance(skip_layer_config=LayerSkipConfig(indices=[1]))`, and other guiders too, take layers by number and find the
# stack of layers themselves: `fqn="auto"` is the default. One would guess that a number means one layer. Networks such as HunyuanImage, Flux and Flux 2 have
# two stacks, `transformer_blocks` and `single_transformer_blocks`, and what is taken is the first of a set of names, so it changes with the seed of Python's
# hashes: each start of the program throws a coin. One seed and one prompt paint one picture all day and another one after a restart, two processes of a server
# paint different ones, and a layer that was chosen by trials is another layer tomorrow. Nothing is said. Name the stack: `LayerSkipConfig(indices=[1],
# fqn="transformer_blocks")`.
# Seen: of 4 starts of the program, with Python's hash seeds 0 to 3, 3 take `single_transformer_blocks` and 1 takes `transformer_blocks`; the guided answers of
# a small HunyuanImage are 0.12 of their size apart; with the stack named there is one answer.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 diffusers==0.42.1 numpy
cat >"$work/guided.py" <<'PY'
"""One step of skip-layer guidance with HunyuanImage: the guided answer with the stack found and with it named, and which was found."""

import diffusers
import torch

diffusers.utils.logging.set_verbosity_error()
SIZES = {"in_channels": 4, "out_channels": 4, "num_layers": 3, "num_single_layers": 3, "num_refiner_layers": 1, "text_embed_dim": 32}
WIDTHS = {"num_attention_heads": 2, "attention_head_dim": 16, "rope_axes_dim": (8, 8)}


def drawn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def guided(config):
    guider = diffusers.SkipLayerGuidance(skip_layer_config=config)
    guider.set_state(step=2, num_inference_steps=20, timestep=torch.tensor(900))
    batches = guider.prepare_inputs({"encoder_hidden_states": (drawn(1, 8, 32, seed=1), drawn(1, 8, 32, seed=2))})
    for batch in batches:
        guider.prepare_models(net)
        given = {"timestep": torch.tensor([900.0]), "encoder_attention_mask": torch.ones(1, 8)}
        batch.noise_pred = net(drawn(1, 4, 8, 8, seed=3), **given, encoder_hidden_states=batch.encoder_hidden_states, return_dict=False)[0]
        guider.cleanup_models(net)
    return guider(batches).pred.flatten().tolist()


torch.manual_seed(0)
net = diffusers.HunyuanImageTransformer2DModel(**SIZES, **WIDTHS).eval()
found = diffusers.LayerSkipConfig(indices=[1])
print(guided(found), guided(diffusers.LayerSkipConfig(indices=[1], fqn="transformer_blocks")), found.fqn, sep="\n")
PY
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - "$work/guided.py" <<'PY'
import json
import os
import subprocess
import sys
from collections import Counter
from importlib.metadata import version

STARTS = 4

print(*(f"{name} {version(name)}" for name in ("diffusers", "torch")))
stacks, answers, named = Counter(), {}, set()
for seed in range(STARTS):
    command = [sys.executable, "-W", "ignore", sys.argv[1]]
    found, same, stack = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": str(seed)}, check=True, capture_output=True, text=True).stdout.splitlines()
    stacks[stack] += 1
    answers.setdefault(stack, set()).add(found)
    named.add(same)
one, other = (json.loads(min(answers[stack])) for stack in sorted(stacks))
apart = (sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / sum(a**2 for a in one)) ** 0.5
print(f"of {STARTS} starts: {dict(stacks)}; their guided answers are {apart:.2f} of their size apart; with the stack named: {len(named)} answer")
assert set(stacks) == {"transformer_blocks", "single_transformer_blocks"} and apart > 0.01, (stacks, apart)
assert len(named) == 1 and all(len(each) == 1 for each in answers.values())
PY
