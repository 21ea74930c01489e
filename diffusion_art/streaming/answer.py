"""From a request to its answer, without a socket: which samples are meant, and the frames that carry them."""

import logging
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from diffusion_art.streaming.order import epoch_order
from diffusion_art.streaming.shards import ShardSet
from diffusion_art.streaming.wire import (
    FRAME_BYTES,
    FRAME_SAMPLES,
    MAX_COUNT,
    MAX_SAMPLE_BYTES,
    Error,
    Read,
    StreamInfo,
    encode_frame,
)

View: TypeAlias = memoryview | None

log = logging.getLogger(__name__)


def describe(shards: ShardSet) -> StreamInfo:
    """What a client is told of a data set."""
    return StreamInfo(
        name=shards.name,
        splits=shards.splits,
        digest=shards.digest,
        image_size_px=shards.image_size_px,
        caption_template=shards.manifest.caption_template,
    )


def refusal(shards: ShardSet, read: Read) -> Error | None:
    """Why `read` cannot be answered, or None when it can."""
    samples = shards.splits.get(read.split)
    if samples is None:
        return Error(read.id, "unknown_split", f"no split {read.split!r}, there are {sorted(shards.splits)}")
    if not read.start < read.stop <= samples:
        message = f"places {read.start} to {read.stop} of split {read.split!r} with {samples} samples"
        return Error(read.id, "bad_range", message)
    if read.stop - read.start > MAX_COUNT:
        message = f"{read.stop - read.start} samples in one request, at most {MAX_COUNT}"
        return Error(read.id, "too_many", message)
    return None


def samples_at(shards: ShardSet, read: Read) -> np.ndarray:
    """The samples (int64, numbers within the split) that `read` asks for."""
    samples = shards.splits[read.split]
    order = epoch_order(samples, seed=read.seed, epoch=read.epoch, split=read.split, digest=shards.digest)
    return order(np.arange(read.start, read.stop))


def views(shards: ShardSet, split: str, samples: np.ndarray) -> tuple[np.ndarray, list[View], list[View]]:
    """ShardSet.views, where a sample too large for a frame is one that cannot be read, with a warning."""
    keys, captions, images = shards.views(split, samples)
    for i, (caption, image) in enumerate(zip(captions, images, strict=True)):
        if caption is None or image is None or len(caption) + len(image) > MAX_SAMPLE_BYTES:
            captions[i] = images[i] = None
            log.warning("sample %016x of split %s cannot be read, or is too large", keys[i], split)
    return keys, captions, images


def frames(shards: ShardSet, read: Read, samples: np.ndarray) -> Iterator[bytearray]:
    """The data frames that answer `read` with `samples`; each holds between one and FRAME_SAMPLES of them."""
    position = read.start
    for first in range(0, len(samples), FRAME_SAMPLES):
        keys, captions, images = views(shards, read.split, samples[first : first + FRAME_SAMPLES])
        for begin, end in _cut(captions, images):
            yield encode_frame(
                keys[begin:end],
                captions[begin:end],
                images[begin:end],
                request=read.id,
                position=position,
                last=position + end - begin == read.stop,
            )
            position += end - begin


def _cut(captions: list[View], images: list[View]) -> Iterator[tuple[int, int]]:
    """Consecutive ranges [begin, end) of about FRAME_BYTES; a sample larger than that has one of its own."""
    begin = size = 0
    for i, (caption, image) in enumerate(zip(captions, images, strict=True)):
        length = len(caption or b"") + len(image or b"")
        if i > begin and size + length > FRAME_BYTES:
            yield begin, i
            begin, size = i, 0
        size += length
    if begin < len(images):
        yield begin, len(images)
