#!/usr/bin/env bash
# lycoris-lora 4.1.3, torch 2.13.0: DyLoRA trains a LoRA of several ranks at once: each training step draws how much of the rank it uses. One would guess that a network
# in `eval()`, as for sample grids and the validation loss, uses all of it, and that `merge_to` and the saved file hold what such samples showed. The draw does not look at
# `eval()`: each call of each layer uses another share of the rank, so samples of one seed differ, and `merge_to` merges a draw as well. What is drawn is also
# scaled by alpha over the number of blocks, and a saved file is read as a LoRA, by alpha over the rank: with blocks of 4, the default, the loaded file paints a
# quarter of the change that training showed at full rank. Training cannot go on from its file either: `load_weights` takes alpha from it and no weight.
# Take `algo="lora"`, or load the file with a multiplier of the block's size.
# Seen: rank 16, blocks of 4: one input has 4 outputs in eval, 4.0 (the whole rank) to 7.7 times as far off as with the file; merged the same; 1.0 with multiplier 4.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 lycoris-lora==4.1.3 numpy
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
import logging
import random
from importlib.metadata import version

import torch
from lycoris import LycorisNetwork, create_lycoris, create_lycoris_from_weights

logging.disable(logging.CRITICAL)
DIM, CALLS = 16, 200
LycorisNetwork.apply_preset({"target_module": ["Sequential"]})


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 64)).eval(), torch.randn(8, 64)


def adapter(net, algo, **blocks):
    return create_lycoris(net, 1.0, linear_dim=DIM, linear_alpha=DIM, algo=algo, **blocks)


@torch.no_grad()
def trained(algo, **blocks):
    """How far an adapter moves the output: in eval and merged, over many calls; once its file is loaded; and its state."""
    random.seed(0)
    net, x = network()
    before = net(x)
    made = adapter(net, algo, **blocks)
    made.apply_to()
    made.eval()
    for weights in made.parameters():
        weights.normal_(std=0.3)
    evaluated = [(net(x) - before).norm().item() for _ in range(CALLS)]
    state = {name: value.clone() for name, value in made.state_dict().items()}
    made.restore()
    merged = []
    for _ in range(20):
        made.merge_to(1.0)
        merged.append((net(x) - before).norm().item())
        net.load_state_dict(network()[0].state_dict())
    return evaluated, merged, state


@torch.no_grad()
def loaded(state, multiplier=1.0):
    net, x = network()
    before = net(x)
    made, _ = create_lycoris_from_weights(multiplier, None, net, weights_sd=state)
    made.apply_to()
    made.eval()
    return (net(x) - before).norm().item()


def taken(state, algo, **blocks):
    """How many entries of its own state a new adapter of this kind takes."""
    made = adapter(network()[0], algo, **blocks)
    made.apply_to()
    return len(state) - len(made.load_state_dict(state, strict=False).unexpected_keys)


print("lycoris-lora", version("lycoris-lora"), "torch", version("torch"))
for algo, blocks in (("lora", {}), ("dylora", {}), ("dylora", {"block_size": 8})):
    evaluated, merged, state = trained(algo, **blocks)
    file = loaded(state)
    times = sorted({round(value / file, 1) for value in evaluated})
    merges = sorted({round(value / file, 1) for value in merged})
    said = f"{algo} {blocks or ''}: outputs of one input in eval {len({round(value, 3) for value in evaluated})}"
    print(f"{said}; times the change of the loaded file: {times}, merged {merges}; entries taken {taken(state, algo, **blocks)} of {len(state)}")
    if algo == "lora":
        assert times == merges == [1.0] and taken(state, algo) == len(state), (times, merges)
        continue
    size = blocks.get("block_size", 4)
    assert len(times) == len(merges) == DIM // size and times == merges and times[0] == size, (times, merges)
    assert taken(state, algo, **blocks) == 1  # alpha
    again = loaded(state, multiplier=size) / min(evaluated)
    print(f"  the file loaded with multiplier {size}: {again:.3f} times the change at full rank")
    assert abs(again - 1) < 1e-3, again
PY
