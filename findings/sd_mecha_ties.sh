#!/usr/bin/env bash
# sd-mecha 1.1.8, torch 2.14.1: `ties_sum` merges what fine-tuned models changed by the paper TIES: where they pull a weight to different sides, the side with the
# greater sum of changes wins, and the mean of its changes is taken. `vote_sgn=True` is said to be another mode, which counts heads instead. One would guess that
# without it sums decide. The flag is read the wrong way round: heads are counted without it, and sums decide with it. So of two models that disagree neither wins,
# since there is one head on each side, and the change is 0, however small the other one is. Half of all weights disagree by chance: of a style and a subject that are
# merged half of both is thrown away. `apply_stock=True` of `ties_sum_extended` is reversed as well: the ratio of "model stock" scales the merge without it. Take
# `ties_sum(..., vote_sgn=True)`, or `ties_sum_extended(..., vote_sgn=True, apply_stock=True)`, for plain TIES.
# Seen: of 100,000 weights of two models, left at the base: ties_sum 50 %, with vote_sgn=True 0 %; equal to TIES by hand: 50 % and 100 %; the extended one with
# vote_sgn=True alone 0 %, with apply_stock=True too 100 %.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 sd-mecha==1.1.8 numpy
cd "$work" && OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PY'
import logging
from importlib.metadata import version

import sd_mecha
import torch
from sd_mecha.extensions import merge_methods
from safetensors.torch import save_file
from tqdm import tqdm

logging.disable(logging.CRITICAL)
WEIGHTS = 100_000
torch.manual_seed(0)
base = {"weight": torch.randn(WEIGHTS)}
style, subject = ({"weight": base["weight"] + 0.1 * torch.randn(WEIGHTS)} for _ in range(2))
for name, model in (("base", base), ("style", style), ("subject", subject)):
    save_file(model, f"{name}.safetensors")


class Silent(tqdm):
    """Merges show their progress otherwise."""

    def __init__(self, *given, **settings):
        super().__init__(*given, **settings | {"disable": True})


def by_hand(by_heads):
    """TIES with all changes kept: the side that wins, and the mean of its changes."""
    changes = torch.stack([model["weight"] - base["weight"] for model in (style, subject)])
    side = (changes.sign() if by_heads else changes).sum(dim=0).sign()
    agree = changes.sign() == side
    return base["weight"] + (changes * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)


def merged(method, **settings):
    """The base with the changes of both models."""
    start, *others = (sd_mecha.model(f"{name}.safetensors") for name in ("base", "style", "subject"))
    changes = method(*(sd_mecha.subtract(other, start) for other in others), k=1.0, **settings)
    return sd_mecha.merge(merge_methods.resolve("add_difference")(start, changes), output_dtype=torch.float32, tqdm=Silent)["weight"]


def share(equal):
    return equal.float().mean().item()


def close(a, b):
    return (a - b).abs() < 1e-5


print("sd-mecha", version("sd-mecha"), "torch", version("torch"))
right = by_hand(by_heads=False)
for name, method, settings in (
    ("ties_sum", sd_mecha.ties_sum, {}),
    ("ties_sum, vote_sgn=True", sd_mecha.ties_sum, {"vote_sgn": True}),
    ("ties_sum_extended, vote_sgn=True", sd_mecha.ties_sum_extended, {"vote_sgn": True}),
    ("ties_sum_extended, vote_sgn=True, apply_stock=True", sd_mecha.ties_sum_extended, {"vote_sgn": True, "apply_stock": True}),
):
    found = merged(method, **settings)
    kept, same, heads = (share(close(found, other)) for other in (base["weight"], right, by_hand(by_heads=True)))
    print(f"{name}: left at the base {kept:.0%}, equal to TIES by hand {same:.0%}, to counted heads {heads:.0%}")
    if not settings:
        assert kept > 0.45 and same < 0.55 and heads > 0.999, (kept, same, heads)
    elif method is sd_mecha.ties_sum or "apply_stock" in settings:
        assert kept < 0.01 and same > 0.999, (kept, same)
    else:
        assert same < 0.01, same  # scaled by the ratio of model stock
PY
