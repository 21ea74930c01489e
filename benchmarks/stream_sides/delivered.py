"""Our stream as a training run reads it: a server process, its socket, loader workers, batches in the main process.

    python -m stream_sides.delivered '{"folder": "...", "protocol": "v2", "codec": "jpeg", "workers": 2, ...}'

The data module and its loader are those of `train`, on shuffled epochs without end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from stream_peers.meter import measure
from torch.utils.data import DataLoader

from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.data.workers import TimedLoader
from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.eir.client import EirReader
from stream_sides.plain_v1 import PlainV1

_STEPS = 200_000  # more than a measurement ever gets through


def main(folder: str, protocol: str, codec: str, workers: int, batch: int, seconds: float, warm_s: float) -> None:
    size_px = ShardSet.open(folder).image_size_px
    module = StreamDataModule(
        shards=Path(folder),
        url="auto",
        image_size_px=size_px,
        global_batch_size=batch,
        num_workers=workers,
        payload=codec,
        cache=str(Path(folder).parent / "decoded"),
    )
    cpu = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(
        global_rank=0, world_size=1, max_steps=_STEPS, accumulate_grad_batches=1, strategy=cpu
    )
    module.prepare_data()
    module.setup()
    try:
        loader = module.train_dataloader()
        url = loader.dataset.open_reader.args[0]
        if protocol == "v1":  # as the module reads a server that speaks nothing else
            loader.dataset.open_reader = partial(EirReader, url)
        plain = DataLoader(PlainV1(url, batch), batch_size=None, num_workers=workers)
        delivered = iter(plain) if protocol == "v1 plain" else batches(loader)
        measure(delivered, size_px=size_px, batch=batch, seconds=seconds, warm_s=warm_s)
    finally:
        module.teardown()


def batches(loader: TimedLoader) -> Iterator[tuple[Any, list[str]]]:
    for batch in loader:
        yield batch.images, batch.captions


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
