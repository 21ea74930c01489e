"""The golden trace: what a change that is meant to alter no numbers must leave alone.

    python -m tests.golden.trace        # write it anew, on purpose: `make golden`

`losses.json` are those of 20 steps of the 32 px quickstart with `+debug=tiny` in float32 on the pictures in `shards/`;
`picture.png` is painted by that run in 5 steps; `toy/` is a shard folder of random bytes as the writer leaves it;
`frame.bin` is the wire's answer to one request; `order.json` holds an order of 1,000 positions. `old/` holds that run's
checkpoint and its exported model as commit e1d1158 wrote them: they are never written anew.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from diffusion_art.runs import load_run
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.order import EpochOrder
from diffusion_art.sources.painter import Painter
from diffusion_art.streaming.answer import frames, samples_at
from diffusion_art.streaming.wire import Read
from diffusion_art.tensors import to_uint8
from tests.shards.toy import write_toy

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STEPS = 20
RUN = "logs/tiny/golden"
SETTINGS = [
    *("+experiment=quickstart32", "+debug=tiny", "run=golden", f"trainer.max_steps={STEPS}"),
    *("trainer.precision=32-true", "alignment.tower.precision=fp32", "trainer.accelerator=cpu"),
    *("data.path=shards", "data.source=null", "data.url=shards", "data.num_workers=0", "callbacks.progress=null"),
    *("model.backbone.block_channels=[16,16]", "model.text_encoder.width=16", "model.text_encoder.vocab_size=640"),
    "alignment.hidden=16",  # so that its checkpoint is small enough to keep
]


def bring_shards(folder: Path) -> None:
    shutil.copytree(HERE / "shards", folder / "shards")


def train(folder: Path, more: Sequence[str] = ()) -> Path:
    """The run, by the real command in `folder`; its run folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "diffusion_art.train", *SETTINGS, *more]
    bring_shards(folder)
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return folder / RUN


def losses(run: Path) -> list[float]:
    return pd.read_csv(run / "metrics.csv")["train/loss"].dropna().tolist()


def picture(run: Path = HERE / "old" / "last.ckpt") -> np.ndarray:
    """[16 16 3] uint8, painted in 5 steps."""
    images = load_run(run).sample(["Piet Mondrian / Grid in Red and Blue / De Stijl"], seed=3, num_steps=5)
    return np.asarray(to_uint8(images)[0])


def frame(shards: Path = HERE / "toy") -> bytes:
    """The first data frame of an answer."""
    opened = open_shards(shards)
    read = Read(id=7, split="train", seed=5, epoch=2, start=1, stop=5)
    return b"".join(next(frames(opened, read, samples_at(opened, read))))


def order() -> list[int]:
    return EpochOrder(1000, seed=3, epoch=2, split="train", digest="0" * 32)(np.arange(1000)).tolist()


def rewrite() -> None:
    """Everything anew, but for the pictures, which the losses depend on."""
    if not (HERE / "shards").exists():
        painter = Painter(count=40, image_size_px=16)
        build_shards(painter, HERE / "shards", image_size_px=16, val_fraction=0.2, progress=False, workers=1)
    with tempfile.TemporaryDirectory() as folder:
        run = train(Path(folder))
        (HERE / "losses.json").write_text(json.dumps(losses(run), indent=0) + "\n")
        Image.fromarray(picture(run)).save(HERE / "picture.png")
    write_toy(HERE / "toy", train=8, val=2)
    (HERE / "frame.bin").write_bytes(frame())
    (HERE / "order.json").write_text(json.dumps(order()) + "\n")


if __name__ == "__main__":
    rewrite()
