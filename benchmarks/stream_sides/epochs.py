"""Whole epochs as a training run reads them: a server process, its socket, loader workers, batches in the main process.

    python -m stream_sides.epochs '{"path": "s3://bucket/set", "cache": "...", "workers": 2, "batch": 64, "epochs": 2}'

Prints the pictures per second of each epoch, shuffled, counted from when its first batch is asked for.
"""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

import torch

from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.shards.places import RemoteSettings, with_remote
from diffusion_art.shards.reader import ShardSet


def main(path: str, cache: str, workers: int, batch: int, epochs: int) -> None:
    spec = with_remote(path, RemoteSettings(cache=cache))
    shards = ShardSet.open(spec[0].path)
    per_epoch = shards.splits["train"] // batch
    module = StreamDataModule(
        shards=spec, url="auto", image_size_px=shards.image_size_px, global_batch_size=batch, num_workers=workers
    )
    cpu = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(
        global_rank=0, world_size=1, max_steps=per_epoch * epochs, accumulate_grad_batches=1, strategy=cpu
    )
    module.prepare_data()
    module.setup()
    try:
        rates, began = [], time.perf_counter()
        for number, _ in enumerate(module.train_dataloader(), start=1):
            if number % per_epoch == 0:
                now = time.perf_counter()
                rates.append(per_epoch * batch / (now - began))
                began = now
        print(json.dumps({f"epoch {number}": rate for number, rate in enumerate(rates, start=1)}))
    finally:
        module.teardown()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
