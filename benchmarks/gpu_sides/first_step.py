"""A process that takes one optimiser step of `wikiart`, and says when it was done, from its own start on.

    python -m gpu_sides.first_step '{"device": "cuda", "compile": "true", "cache": ..., "folder": ..., "scale": {...}}'

All that is compiled, by torch or by Triton, is kept in the folder `cache`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import psutil


def main(given: dict) -> float:
    os.environ["DIFFUSION_ART_CACHE"] = given["cache"]
    os.environ["TRITON_CACHE_DIR"] = f"{given['cache']}/triton"
    os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
    import torch  # reads the variables

    torch.set_float32_matmul_precision("high")  # as in gpu.py, whose parts else find nothing of what is compiled here
    from gpu_sides.ground import Ground, Scale
    from gpu_sides.steps import our_side

    scale = Scale(**{name: tuple(v) if isinstance(v, list) else v for name, v in given["scale"].items()})
    ground = Ground(torch.device(given["device"]), scale, Path(given["folder"]))
    our_side(ground, f"compile={given['compile']}").seconds(ground, 1)
    return time.time() - psutil.Process().create_time()


if __name__ == "__main__":
    print(json.dumps({"seconds": main(json.loads(sys.argv[1]))}))
