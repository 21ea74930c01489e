"""One library reading the pictures from local disk, as its documentation shows, shuffled and batched.

    python -m stream_peers.run_peer '{"name": "webdataset", "folder": "...", "decoder": "own", "workers": 2, ...}'

`decoder` is `own`, how the library itself turns a JPEG into an array, or `simplejpeg`, the decoder of our client
lent to it. Every batch is the same: uint8, (batch, 3, size, size), and its captions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from stream_peers.meter import measure

_SHUFFLE_BUFFER = 1000  # samples, as the manuals of webdataset and datasets have it


def picture(data: bytes) -> torch.Tensor:
    """`h w 3` by simplejpeg."""
    import simplejpeg

    return torch.from_numpy(simplejpeg.decode_jpeg(data, colorspace="RGB"))


def of_pillow(image: Any) -> torch.Tensor:
    """`h w 3` of a Pillow image."""
    return torch.from_numpy(np.array(image.convert("RGB")))


def batch_of(samples: list[dict[str, Any]]) -> tuple[torch.Tensor, list[str]]:
    """The batch of samples whose pictures are `h w 3`, or `3 h w`."""
    images = torch.stack([sample["image"] for sample in samples])
    if images.shape[1] != 3:
        images = images.permute(0, 3, 1, 2)
    return images, [sample["caption"] for sample in samples]


def batch_of_bytes(samples: list[dict[str, Any]]) -> tuple[torch.Tensor, list[str]]:
    """The batch of samples whose pictures are still JPEGs."""
    return batch_of([{**sample, "image": picture(sample["image"]["bytes"])} for sample in samples])


def again(loader: Any) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Epoch after epoch."""
    while True:
        yield from loader


def webdataset(folder: Path, own: bool, batch: int, workers: int) -> Iterator[tuple[torch.Tensor, list[str]]]:
    import webdataset as wds

    def jpeg(data: bytes) -> torch.Tensor:
        return picture(data).permute(2, 0, 1)

    urls = [str(path) for path in sorted(folder.glob("train-*.tar"))]
    decoder = "torchrgb8" if own else wds.handle_extension("jpg", jpeg)
    dataset = (
        wds.WebDataset(urls, shardshuffle=len(urls))
        .shuffle(_SHUFFLE_BUFFER)
        .decode(decoder)
        .to_tuple("jpg", "txt")
        .batched(batch, partial=False)
        .repeat()
    )
    return iter(wds.WebLoader(dataset, batch_size=None, num_workers=workers))


def litdata(folder: Path, own: bool, batch: int, workers: int) -> Iterator[tuple[torch.Tensor, list[str]]]:
    from litdata import StreamingDataLoader, StreamingDataset

    class Pictures(StreamingDataset):
        def __getitem__(self, index: Any) -> dict[str, Any]:
            sample = super().__getitem__(index)
            return sample if own else {**sample, "image": picture(sample["image"])}

    dataset = Pictures(str(folder / ("own" if own else "bytes")), shuffle=True, drop_last=True)
    return again(StreamingDataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=batch_of))


def mosaicml(folder: Path, own: bool, batch: int, workers: int) -> Iterator[tuple[torch.Tensor, list[str]]]:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    class Pictures(StreamingDataset):
        def __getitem__(self, at: Any) -> dict[str, Any]:
            sample = super().__getitem__(at)
            return {**sample, "image": of_pillow(sample["image"]) if own else picture(sample["image"])}

    clean_stale_shared_memory()  # what a killed run left would be taken for another one's
    dataset = Pictures(local=str(folder / ("own" if own else "bytes")), shuffle=True, batch_size=batch)
    loader = DataLoader(
        dataset,
        batch_size=batch,
        num_workers=workers,
        collate_fn=batch_of,
        drop_last=True,
        persistent_workers=workers > 0,
    )
    return again(loader)


def datasets(folder: Path, own: bool, batch: int, workers: int) -> Iterator[tuple[torch.Tensor, list[str]]]:
    from datasets import Image, load_dataset

    files = [str(path) for path in sorted(folder.glob("*.parquet"))]
    dataset = load_dataset("parquet", data_files=files, split="train", streaming=True)
    dataset = dataset.shuffle(seed=0, buffer_size=_SHUFFLE_BUFFER).repeat(None)
    dataset = dataset.with_format("torch") if own else dataset.cast_column("image", Image(decode=False))
    collate = batch_of if own else batch_of_bytes
    return iter(DataLoader(dataset, batch_size=batch, num_workers=workers, collate_fn=collate, drop_last=True))


PEERS: dict[str, Callable[..., Iterator[tuple[torch.Tensor, list[str]]]]] = {
    "webdataset": webdataset,
    "litdata": litdata,
    "mosaicml-streaming": mosaicml,
    "datasets": datasets,
}


def main(
    name: str, folder: str, decoder: str, workers: int, batch: int, size_px: int, seconds: float, warm_s: float
) -> None:
    batches = PEERS[name](Path(folder), decoder == "own", batch, workers)
    measure(batches, size_px=size_px, batch=batch, seconds=seconds, warm_s=warm_s)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
