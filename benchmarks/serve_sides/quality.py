"""How well a way of painting follows captions: the share of pictures in which a judge finds the style and both colours.

python -m serve_sides.quality '{"run": ..., "way": "eir", "count": 96}'
python -m serve_sides.quality '{"run": ..., "way": "dpmpp_2m", "steps": 8, "count": 96}'
"""

from __future__ import annotations

import json
import sys

import torch
from torch import Tensor

from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.evaluation.caption_following import caption_following
from serve_sides.model import EIR_SAMPLER, GUIDANCE_SCALE, load


def follows(run: str, way: str, count: int, steps: int = 0) -> dict[str, float]:
    """Shares of `count` captions that the model has not seen, from the same seeds for every way."""
    model = load(run)
    sampler = EIR_SAMPLER if way == "eir" else Sampler(way, num_steps=steps)

    def generate(captions: list[str], seeds: list[int]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=way != "eir"):
            return model.generate(captions, seeds=seeds, sampler=sampler, guidance_scale=GUIDANCE_SCALE)

    found = caption_following(generate, count=count, held_out_count=0)
    return {"style": found["style"], "palette": found["palette"]}


if __name__ == "__main__":
    print(json.dumps(follows(**json.loads(sys.argv[1]))))
