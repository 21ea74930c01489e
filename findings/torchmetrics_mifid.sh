#!/usr/bin/env bash
# torchmetrics 1.9.0, torch 2.13.0: `MemorizationInformedFrechetInceptionDistance` (MIFID) is FID divided by how far the generated pictures lie from the
# training pictures that they are nearest to, so that a model which copies does badly. One would guess that a model all of whose pictures are copies
# gets the worst figure there is. It looks for the nearest generated picture of each training picture instead, the other way round. A model that
# has copied a tenth of its training set and paints nothing else leaves nine tenths without a neighbour, so it gets no penalty at all: its MIFID is its FID.
# Only a model that copies nearly all of its training set is found. FID is the same both ways, so with the two `real=` flags exchanged it is the metric
# that was guessed. Here a model that copies 200 of 2,000 pictures beats one that paints new pictures with too little contrast.
# Seen: copies: FID 15900, MIFID 15900 (exchanged 1.6e18); new pictures: FID 26000, MIFID 26000 (exchanged 26000).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0 scipy numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance


class Pixels(torch.nn.Module):
    """The features of a picture: its pixels, with grey at 0."""

    num_features = 48

    def forward(self, pictures):
        return pictures.flatten(1).float() - 127.5


def measured(metric, real, fake):
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute().item()


def pictures(count, seed):
    return torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


print("torchmetrics", version("torchmetrics"), "torch", version("torch"))
training = pictures(2_000, seed=0)
flat = (127.5 + 0.7 * (pictures(2_000, seed=1) - 127.5)).round().byte()
found = {}
for name, painted in (("copies of a tenth of them", training[:200].repeat(10, 1, 1, 1)), ("new pictures", flat)):
    fid = measured(FrechetInceptionDistance(Pixels()), training, painted)
    mifid = measured(MemorizationInformedFrechetInceptionDistance(Pixels()), training, painted)
    exchanged = measured(MemorizationInformedFrechetInceptionDistance(Pixels()), painted, training)
    found[name] = fid, mifid, exchanged
    print(f"{name}: FID {fid:.0f}, MIFID {mifid:.0f}, with the flags exchanged {exchanged:.3g}")
for fid, mifid, _ in found.values():
    assert abs(mifid / fid - 1) < 1e-3, found
copies, new = found.values()
assert copies[1] < new[1] and copies[2] > 1e6 * copies[0] and abs(new[2] / new[0] - 1) < 1e-3, found
PY
