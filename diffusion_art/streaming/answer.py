"""From a request to its answer, without a socket: which samples are meant, and the frames that carry them."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from diffusion_art.shards.manifest import samples_in
from diffusion_art.shards.mixture import Shards
from diffusion_art.shards.order import draws_between
from diffusion_art.streaming.wire import (
    FRAME_BYTES,
    FRAME_SAMPLES,
    MAX_COUNT,
    MAX_SAMPLE_BYTES,
    Buffer,
    Error,
    Read,
    StreamInfo,
    frame_parts,
)

View: TypeAlias = memoryview | None

log = logging.getLogger(__name__)


def describe(shards: Shards) -> StreamInfo:
    """What a client is told of a data set."""
    return StreamInfo(
        name=shards.name,
        splits=shards.splits,
        digest=shards.digest,
        image_size_px=shards.image_size_px,
        caption_template=shards.caption_template,
        codecs=shards.codecs,
        buckets=shards.buckets,
        bucket_shares=shards.bucket_shares,
    )


def refusal(shards: Shards, read: Read, *, max_count: int = MAX_COUNT) -> Error | None:
    """Why `read` cannot be answered, or None when it can."""
    samples = samples_in(read.split, shards.splits, shards.buckets)
    if samples is None:
        return Error(read.id, "unknown_split", f"no split {read.split!r}, there are {sorted(shards.splits)}")
    if not read.start < read.stop <= samples:
        message = f"places {read.start} to {read.stop} of split {read.split!r} with {samples} samples"
        return Error(read.id, "bad_range", message)
    if read.codec not in shards.codecs:
        message = f"no codec {read.codec!r}, there are {', '.join(shards.codecs)}"
        return Error(read.id, "unknown_codec", message)
    if read.stop - read.start > max_count:
        message = f"{read.stop - read.start} samples in one request, at most {max_count}"
        return Error(read.id, "too_many", message)
    return None


def samples_at(shards: Shards, read: Read) -> np.ndarray:
    """The samples (int64, numbers within the split) that `read` asks for."""
    return shards.samples(read.split, read.seed, read.epoch, read.start, read.stop)


def draws_at(shards: Shards, read: Read) -> np.ndarray | None:
    """What chooses the caption at each place that `read` asks for; None where it is the first, or the only one."""
    if read.seed is None or not shards.tells_several(read.split):
        return None
    return draws_between(read.split, read.seed, read.epoch, read.start, read.stop)


def views(
    shards: Shards, split: str, samples: np.ndarray, codec: str = "jpeg", told: np.ndarray | None = None
) -> tuple[np.ndarray, list[View], list[View]]:
    """ShardSet.views with the draws `told`; a sample too large for a frame cannot be read, with a warning."""
    keys, captions, images = shards.views(split, samples, codec, told)
    try:
        if int(_sizes(captions, images).max(initial=0)) <= MAX_SAMPLE_BYTES:
            return keys, captions, images
    except TypeError:  # one of them is None
        pass
    for i, (caption, image) in enumerate(zip(captions, images, strict=True)):
        if caption is None or image is None or len(caption) + len(image) > MAX_SAMPLE_BYTES:
            captions[i] = images[i] = None
            log.warning("sample %016x of split %s cannot be read, or is too large", keys[i], split)
    return keys, captions, images


def frames(shards: Shards, read: Read, samples: np.ndarray) -> Iterator[list[Buffer]]:
    """The data frames that answer `read` with `samples`, in parts; each holds between one and FRAME_SAMPLES."""
    position, drawn = read.start, draws_at(shards, read)
    for first in range(0, len(samples), FRAME_SAMPLES):
        here = slice(first, first + FRAME_SAMPLES)
        told = None if drawn is None else drawn[here]
        keys, captions, images = views(shards, read.split, samples[here], read.codec, told)
        for begin, end in _cut(captions, images):
            yield frame_parts(
                keys[begin:end],
                captions[begin:end],
                images[begin:end],
                request=read.id,
                position=position,
                last=position + end - begin == read.stop,
                checksum=read.checksum,
            )
            position += end - begin


def _cut(captions: list[View], images: list[View]) -> Iterator[tuple[int, int]]:
    """Consecutive ranges [begin, end) of about FRAME_BYTES; a sample larger than that has one of its own."""
    try:
        sizes = _sizes(captions, images)
    except TypeError:
        sizes = _sizes([caption or b"" for caption in captions], [image or b"" for image in images])
    ends = np.cumsum(sizes)
    begin = 0
    while begin < len(ends):
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + FRAME_BYTES, side="right")))
        yield begin, end
        begin = end


def _sizes(captions: Sequence[Any], images: Sequence[Any]) -> np.ndarray:
    """Bytes of each sample. TypeError when one of them is None."""
    return np.array([*map(len, captions)], np.int64) + np.array([*map(len, images)], np.int64)
