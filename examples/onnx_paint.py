"""Paint with a folder of `python -m diffusion_art.export format=onnx`, by numpy, onnxruntime and pillow alone:
python examples/onnx_paint.py FOLDER "a red house" "a blue house" --seed 0 --out pictures.png
"""

import argparse
import html
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

options = argparse.ArgumentParser(description="Paint captions, side by side in one file.")
options.add_argument("folder", type=Path)
options.add_argument("captions", nargs="+")
options.add_argument("--seed", type=int, default=0)
options.add_argument("--noise", help="a .npy of unit noise to begin with, in place of the seed's")
options.add_argument("--guidance", type=float, help="1 is none; left out: as in the run's own pictures")
options.add_argument("--out", default="pictures.png")
asked = options.parse_args()
how, vocab = (json.loads((asked.folder / name).read_text("utf-8")) for name in ("painting.json", "vocab.json"))
merges = (asked.folder / "merges.txt").read_text("utf-8").splitlines()[1:]
rank = {tuple(pair.split()): number for number, pair in enumerate(merges)}
encoder, denoiser = (onnxruntime.InferenceSession(asked.folder / f"{it}.onnx") for it in ("text_encoder", "denoiser"))

n, b, y = len(asked.captions), how["unshuffle"], how["latents"][1]  # blocks of b x b pixels lie in the channels
ids, mask = np.zeros((2, 2 * n, how["context_length"]), np.int64)  # of each caption, then of none
for row, caption in enumerate([*asked.captions, *[""] * n]):
    found = [vocab["<|startoftext|>"]]
    for word in re.findall(how["words"], " ".join(html.unescape(html.unescape(caption)).split()).lower()):
        parts = [how["bytes"][byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while pairs := [(rank[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in rank]:
            i = min(pairs)[1]
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        found += [vocab[part] for part in parts]
    found = [*found[: ids.shape[1] - 1], vocab["<|endoftext|>"]]
    ids[row, : len(found)], mask[row, : len(found)] = found, 1
tokens, pooled = encoder.run(None, {one.name: {"ids": ids, "mask": mask > 0}[one.name] for one in encoder.get_inputs()})
guidance = how["guidance_scale"] if asked.guidance is None else asked.guidance
random = np.random.default_rng(asked.seed)
x = np.load(asked.noise) if asked.noise else random.standard_normal((n, *how["latents"]), np.float32)
memory = last = np.zeros_like(x)
for call in how["calls"]:
    rows = slice(2 * n if call["guided"] and guidance != 1 else n)
    x_t = np.concatenate([x, x])[rows]
    told = {"tokens": tokens[rows], "mask": mask[rows] > 0, "pooled": pooled[rows]}
    seen = {"x_t": np.float32(call["shown"]) * x_t, "clock": np.full(len(x_t), call["clock"], np.float32)}
    x_0 = np.float32(call["of_input"]) * x_t + np.float32(call["of_out"]) * denoiser.run(None, {**seen, **told})[0]
    cond, x_0 = x_0[:n], x_0[-n:] + np.float32(guidance) * (x_0[:n] - x_0[-n:])
    x_0 *= 1 + how["guidance_rescale"] * (cond.std((1, 2, 3), keepdims=True) / x_0.std((1, 2, 3), keepdims=True) - 1)
    share = how["guidance_threshold"] if len(x_t) > n else 0  # of the values that must fit the range
    limit = np.quantile(np.abs(x_0), share, (1, 2, 3), keepdims=True, method="inverted_cdf").clip(1) if share else 1
    parts = [x, np.clip(x_0, -limit, limit) / limit, memory, last, random.standard_normal(x.shape, np.float32)]
    x, memory, last = *(sum(np.float32(k) * it for k, it in zip(call[to], parts)) for to in ("x", "memory")), parts[1]
pixels = x.reshape(n, 3, b, b, y, y).transpose(0, 4, 2, 5, 3, 1).reshape(n, y * b, y * b, 3)
Image.fromarray(np.hstack(((pixels.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8))).save(asked.out)
