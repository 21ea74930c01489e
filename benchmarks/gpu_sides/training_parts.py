"""Pictures a second of a training step, its share of the device's rate, its memory, and what its parts cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import chain, cycle
from typing import Any

import psutil
import torch
from record import figure

from gpu_sides.ground import Ground
from gpu_sides.part import Part, Raw, Rows, compared
from gpu_sides.steps import ADAMW, PLAIN, before_side, diffusers_side, flops_of, our_side
from gpu_sides.turns import Side, copy_bytes_per_s, product_flops_per_s, ratios, take_turns

AT_ONCE = "find_batch_size=false"
CLIP_TOWER = "open_clip_pretrained"


def median(values: list[float]) -> float:
    return statistics.median(values)


# ---------------------------------------------------------------------- ceilings

PRODUCT, COPY = "bf16 matrix product of side 8192, TFLOP/s", "copy within the device's memory, GB/s read and written"


def _ceilings(ground: Ground) -> Raw:
    return {"product": product_flops_per_s(ground), "copy": copy_bytes_per_s(ground)}


def _ceiling_rows(raw: Raw, about: dict[str, Any]) -> Rows:
    return [figure(PRODUCT, raw["product"] / 1e12, **about), figure(COPY, raw["copy"] / 1e9, **about)]


ceilings = Part("ceilings", (PRODUCT, COPY), 5, _ceilings, _ceiling_rows)


# ---------------------------------------------------------------------- images a second


def _rates(
    name: str,
    line: str,
    *,
    sides: Callable[[Ground], dict[str, Side]],
    peer_name: str,
    at_least: float,
    takes_s: float,
    **more: Any,
) -> Part:
    """Images a second of side `ours` against side `peer`."""

    def measure(ground: Ground) -> Raw:
        return {"batch": ground.scale.batch, "seconds": take_turns(ground, sides(ground))}

    def rows(raw: Raw, about: dict[str, Any]) -> Rows:
        seconds, batch = raw["seconds"], raw["batch"]
        ours, peer = batch / median(seconds["ours"]), batch / median(seconds["peer"])
        turns = ratios(seconds, "peer", "ours")
        row = compared(
            line, ours=ours, peer=peer, peer_name=peer_name, ratios=turns, at_least=at_least, **more, **about
        )
        return [row]

    return Part(name, (line,), takes_s, measure, rows)


shipped = _rates(
    "shipped",
    "wikiart images/s as shipped, 128 px, no override",
    sides=lambda ground: {"ours": our_side(ground), "peer": before_side(ground)},
    peer_name="as shipped before: AdamW, four parts of 32, eager, plain PyTorch (341 on an H200 at e1d1158)",
    at_least=4,
    takes_s=40,
)
eager = _rates(
    "eager",
    "images/s eager, AdamW, 128 px, batch 128",
    sides=lambda ground: {
        "ours": our_side(ground, *PLAIN, AT_ONCE, "compile=false"),
        "peer": diffusers_side(ground, compiled=False),
    },
    peer_name="diffusers' plain loop, eager (bf16 autocast, NCHW, fused AdamW)",
    at_least=1.3,
    takes_s=20,
)
compiled = _rates(
    "compiled",
    "images/s compiled, AdamW, 128 px, batch 128",
    sides=lambda ground: {
        "ours": our_side(ground, *PLAIN, AT_ONCE, "compile=true"),
        "peer": diffusers_side(ground, compiled=True),
    },
    peer_name="diffusers' loop, its network compiled as one graph, channels last",
    at_least=1.3,
    takes_s=110,
)


# ---------------------------------------------------------------------- the share of the matrix product's rate

SHARE = "TFLOP/s of a whole step with AdamW, 128 px, batch 128, compiled"


def _share(ground: Ground) -> Raw:
    flops = flops_of(ground, *PLAIN, AT_ONCE)
    ground.clear()
    return {"flops": flops, "seconds": take_turns(ground, {"ours": our_side(ground, *PLAIN, AT_ONCE, "compile=true")})}


def _share_rows(raw: Raw, about: dict[str, Any]) -> Rows:
    seconds, flops = raw["seconds"], raw["flops"]
    shares = [flops / (step_s * rate) for step_s, rate in zip(seconds["ours"], seconds["product"], strict=True)]
    sides = {"ours": flops / median(seconds["ours"]) / 1e12, "peer": median(seconds["product"]) / 1e12}
    peer_name = "bf16 matrix product of side 8192 between the turns"
    row = compared(SHARE, **sides, peer_name=peer_name, ratios=shares, at_least=0.4, flops=flops, **about)
    return [row]


share = Part("share", (SHARE,), 15, _share, _share_rows)


# ---------------------------------------------------------------------- memory

MEMORY = "peak memory of training with 128 pictures a step, as shipped, GB"


def _memory(ground: Ground) -> Raw:
    plain = (*PLAIN, AT_ONCE, "compile=false")
    return {
        "ours": _peak(ground, lambda: our_side(ground)),
        "peer": _peak(ground, lambda: our_side(ground, *plain, fast=False)),
    }


def _peak(ground: Ground, make: Callable[[], Side]) -> float:
    """Bytes that a side's tensors take at most once it is warm, alone on the device; on a CPU those of the process."""
    ground.clear()
    side = make()
    side.seconds(ground, ground.scale.warm_up)
    if not ground.on_gpu:
        return float(psutil.Process().memory_info().rss)
    torch.cuda.reset_peak_memory_stats(ground.device)
    side.seconds(ground, ground.scale.warm_up)
    return float(torch.cuda.max_memory_allocated(ground.device))


def _memory_rows(raw: Raw, about: dict[str, Any]) -> Rows:
    sides = {"ours": raw["ours"] / 1e9, "peer": raw["peer"] / 1e9}
    peer_name = "plain PyTorch, eager, AdamW, 128 at once (31.0 GB on an H200 at e1d1158)"
    shares = [raw["ours"] / raw["peer"]]
    return [compared(MEMORY, **sides, peer_name=peer_name, ratios=shares, at_most=0.5, **about)]


memory = Part("memory", (MEMORY,), 15, _memory, _memory_rows)


# ---------------------------------------------------------------------- costs

MUON, ALIGNMENT = "ms a step with Muon", "ms a step with alignment=features"
TOWER = "ms a step with CLIP's text tower reading new captions only, ViT-B-32"
COSTS = {
    MUON: ("muon", "adamw", "AdamW", 1.04),
    ALIGNMENT: ("aligned", "adamw", "none", 1.02),
    TOWER: ("new captions", "cached", "the same captions from its cache", 1.05),
}


def _costs(ground: Ground) -> Raw:
    def side(*overrides: str, **how: str) -> Side:
        return our_side(ground, AT_ONCE, "compile=true", *overrides, **how)

    clip = (*ground.clip(), *PLAIN)
    sides = {
        "adamw": side(*PLAIN),
        "muon": side("alignment=none"),
        "aligned": side(*ADAMW, "alignment=features"),
        "cached": side(*clip, tower=CLIP_TOWER),
        "new captions": side(*clip, "model.text_encoder.cache_captions=0", tower=CLIP_TOWER),
    }
    steps = ground.scale.warm_up + ground.scale.turns * ground.scale.steps
    never_seen = [[batch] for batch in ground.batches(ground.scale.batch, steps, first_caption=100_000)]
    sides["new captions"].feed = chain(never_seen, cycle(never_seen))
    return take_turns(ground, sides, budget_s=60)


def _cost_rows(raw: Raw, about: dict[str, Any]) -> Rows:
    return [
        compared(
            line,
            ours=1e3 * median(raw[ours]),
            peer=1e3 * median(raw[peer]),
            peer_name=peer_name,
            ratios=ratios(raw, ours, peer),
            at_most=at_most,
            **about,
        )
        for line, (ours, peer, peer_name, at_most) in COSTS.items()
    ]


costs = Part("costs", tuple(COSTS), 45, _costs, _cost_rows)
