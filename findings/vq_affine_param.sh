#!/usr/bin/env bash
# vector-quantize-pytorch 1.32.0, torch 2.14.1: `VectorQuantize(affine_param=True)` moves and scales its whole codebook to where the network's outputs are, so that
# codes which are chosen rarely keep up. One would guess that `get_output_from_indices` gives for stored tokens what the layer gave when it made them: that is how a
# generator of tokens is decoded, and how a data set of tokens is. It takes the codebook as it is stored, before it is moved and scaled. The decoder gets vectors from
# another place than it was trained with, and paints something else. The reconstructions during training are right, so nothing tells. Without `affine_param` the two
# agree. Nor does `eval()` stop the moving: each batch that is encoded moves the codebook a little more, so the tokens of a picture depend on what was encoded before
# it. Move codes by hand: `(codes - b.codebook_mean) * (b.batch_variance / b.codebook_variance).sqrt() + b.batch_mean`, with each variance at least 1e-5 and b =
# layer._codebook, as it was when the tokens were made.
# Seen: distance of decoded tokens from what the layer gave, over the spread of the latter: plain 0.00, affine_param 2.71, by hand 0.00; after 100 batches in eval()
# of a quarter of the brightness the outputs of one input lie 1.34 away, and 59 % of its tokens are others.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 vector-quantize-pytorch==1.32.0 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from vector_quantize_pytorch import VectorQuantize

DIM, CODES, STEPS = 16, 64, 100


def outputs():
    """What an encoder gives: around 3, with a spread of 2."""
    return 3 + 2 * torch.randn(8, 64, DIM)


def moved(layer, codes):
    """Codes where the layer uses them: moved and scaled to the outputs it has seen."""
    book = layer._codebook
    scale = (book.batch_variance.clamp(min=1e-5) / book.codebook_variance.clamp(min=1e-5)).sqrt()
    return (codes - book.codebook_mean) * scale + book.batch_mean


def distance(a, b):
    return ((a - b).pow(2).mean().sqrt() / b.std()).item()


print(*(f"{name} {version(name)}" for name in ("vector-quantize-pytorch", "torch")))
for affine in (False, True):
    torch.manual_seed(0)
    layer = VectorQuantize(dim=DIM, codebook_size=CODES, affine_param=affine)
    for _ in range(STEPS):
        layer(outputs())
    layer.eval()
    with torch.no_grad():
        x = outputs()
        given, tokens, _ = layer(x)
        decoded = layer.get_output_from_indices(tokens)
        error, off = distance(given, x), distance(decoded, given)
        print(f"affine_param={affine}: the layer's output is {error:.2f} from its input; decoded tokens are {off:.2f} from the layer's output")
        if not affine:
            assert off < 1e-5, off
            continue
        by_hand = distance(moved(layer, decoded), given)
        for _ in range(STEPS):
            layer(outputs() / 4)  # still in eval(): darker pictures, say
        drift, changed = distance(layer(x)[0], given), (layer(x)[1] != tokens).float().mean().item()
        print(f"  moved and scaled by hand: {by_hand:.2f}; in eval(), after {STEPS} other batches: output {drift:.2f} away, {changed:.0%} other tokens")
        assert off > 1 and by_hand < 1e-3 and drift > 0.3 and changed > 0.3, (off, by_hand, drift, changed)
PY
