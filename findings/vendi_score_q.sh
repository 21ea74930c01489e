#!/usr/bin/env bash
# vendi-score 0.0.3, scipy 1.17.1: the Vendi score is the effective number of different pictures in a set, and its order `q` says which count: q=inf looks at the
# most frequent ones, so that it finds a model most of whose pictures are alike, and q below 1 at the rare ones. One would guess that `score_X(features, q=...)`
# uses q, as `score_K` and `score_dual` do for the same pictures. It takes q and computes order 1. Nothing is said, and order 1 is a plausible number. Here
# seven of ten pictures are alike and three are all different: q=inf should say that there are 1.4 pictures and says 5.1, and a sweep over q is flat.
# `score_K(features @ features.T, q=q)`, of features of length 1, is right, and so is `score_dual(features, q=q)`.
# Seen: q 0.5, 1, 2, inf: score_X 5.11 for each; score_K, score_dual and by hand 14.72, 5.11, 2.03, 1.43.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check vendi-score==0.0.3 numpy scipy==1.17.1 scikit-learn
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import numpy as np
from vendi_score import vendi

ORDERS = (0.5, 1, 2, "inf")


def by_hand(sizes, q):
    """The score of groups of equal pictures, with no likeness between groups: the Hill number of their sizes."""
    shares = np.array(sizes) / sum(sizes)
    if q == 1:
        return np.exp(-(shares * np.log(shares)).sum())
    if q == "inf":
        return 1 / shares.max()
    return (shares**q).sum() ** (1 / (1 - q))


sizes = [70, *[1] * 30]  # 70 pictures that are alike, and 30 of their own
features = np.repeat(np.eye(64)[: len(sizes)], sizes, axis=0)
print(*(f"{name} {version(name)}" for name in ("vendi-score", "scipy")))
found = {
    "by hand": [by_hand(sizes, q) for q in ORDERS],
    "score_K": [vendi.score_K(features @ features.T, q=q) for q in ORDERS],
    "score_dual": [vendi.score_dual(features, q=q) for q in ORDERS],
    "score_X": [vendi.score_X(features, q=q) for q in ORDERS],
}
for name, scores in found.items():
    print(f"{name}, q = {', '.join(map(str, ORDERS))}: {[round(float(score), 2) for score in scores]}")
for name in ("score_K", "score_dual"):
    assert np.allclose(found[name], found["by hand"], rtol=1e-3), (name, found)
assert np.allclose(found["score_X"], found["by hand"][1], rtol=1e-6), found
PY
