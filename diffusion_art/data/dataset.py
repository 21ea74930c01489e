"""The stream as a PyTorch data set: whole batches, each knowing its place.

Global batch `k` is the positions `[k B, (k+1) B)` of the endless order, or what the plan says. Rank `r` takes its slice
of every global batch, loader worker `w` of `W` prepares every `W`-th batch; what a run sees depends on neither.
Pictures are decoded straight into their place in the batch, and travel as bytes: they become floats on the device
(datamodule.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from diffusion_art.data.plan import BatchSizes, Consecutive, Plan, Stretch
from diffusion_art.data.precomputed import ToldFirst
from diffusion_art.data.transforms import Augmentation
from diffusion_art.data.workers import Parcel, Ring, channels_first, private, shared
from diffusion_art.errors import UserError
from diffusion_art.shards.order import rank_slice
from diffusion_art.shards.pixels import BadPicture, payload_of
from diffusion_art.shards.reader import Sample
from diffusion_art.sizes import Size, scaled_to
from diffusion_art.streaming.client.readers import ReadRequest
from diffusion_art.tensors import Batch

log = logging.getLogger(__name__)


class Reader(Protocol):
    """A `StreamClient` or a `ShardReader`: whole requests in, their samples out, in order."""

    def read(self, requests, *, window: int = 8) -> Iterator[list[Sample]]: ...

    def close(self) -> None: ...


class StreamDataset(IterableDataset):
    """Batches `first_batch() .. last_batch` of a split, this rank's and this worker's share of them.

    Pictures that cannot be decoded are replaced, at their place in the batch, by the next readable sample of
    the order (the same one whatever the rank or worker), counted and logged; after `max_bad` different ones in one
    worker the run stops, since then something is wrong with the shards. `codec` is what the reader gives (wire.py);
    `ring` where loader workers put their batches. With `repeat` the pictures of the first so many batches come again
    and again, the same in every way but for their positions. Pictures have `image_size_px` a side, or what
    `sizes` says of their batch; where the `plan` says another size it is that of its bucket, as much smaller. Where
    the codec is one of latents, those of a square have the shape `latents` (c h w).

    Raises:
        UserError: more than `max_bad` unreadable pictures, or nothing else in a split.
    """

    def __init__(
        self,
        open_reader: Callable[[], Reader],
        *,
        split: str,
        seed: int | None,
        samples: int,
        global_batch_size: int,
        last_batch: int,
        image_size_px: int,
        sizes: BatchSizes | None = None,
        first_batch: Callable[[], int] | None = None,
        rank: int = 0,
        world: int = 1,
        augmentation: Augmentation | None = None,
        window: int = 4,
        max_bad: int = 100,
        codec: str = "jpeg",
        latents: tuple[int, int, int] | None = None,
        ring: Ring | None = None,
        repeat: int | None = None,
        plan: Plan | None = None,
        stored_size_px: int | None = None,
    ) -> None:
        self.open_reader = open_reader
        self.split = split
        self.seed = seed  # None reads the split in its stored order
        self.samples = samples
        self.global_batch_size = global_batch_size
        self.first_batch = first_batch
        self.last_batch = last_batch
        self.sizes = sizes or BatchSizes((0,), (image_size_px,))
        self.rank = rank
        self.world = world
        self.augmentation = augmentation
        self.window = window
        self.max_bad = max_bad
        self.codec = codec
        self.payload = payload_of(codec)
        self.latents = latents
        self.ring = ring
        self.repeat = repeat
        self.plan = plan or Consecutive(split, samples, global_batch_size, once=seed is None)
        self.stored_size_px = stored_size_px or image_size_px  # to which the sizes of a plan belong
        self.start = 0
        self.bad: set[str] = set()  # keys of the unreadable pictures met so far, in this process

    def __len__(self) -> int:
        """Batches of the whole run, those before a resume included: progress bars show true totals."""
        return self.last_batch

    def __getstate__(self) -> dict:
        """What a spawned worker needs; where to begin was settled before it started."""
        return {**self.__dict__, "first_batch": None}

    def settle(self) -> None:
        """Fix where to begin. Called in the main process just before the loader's workers start."""
        if self.first_batch is not None:
            self.start = self.first_batch()

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        numbers = range(self.start + offset, self.last_batch, stride)
        if self.seed is None:  # ranks may have nothing of the last global batch
            numbers = [k for k in numbers if self._part(k).stop > self._part(k).start]
        reader = self.open_reader()
        try:
            answers = reader.read((self._request(self._origin(k)) for k in numbers), window=self.window)
            for k, samples in zip(numbers, answers, strict=True):
                yield self._batch(list(samples), self._origin(k), cursor=k + 1)
        finally:
            reader.close()

    def _part(self, k: int) -> Stretch:
        """This rank's share of global batch `k`; in one pass that may be short, or empty."""
        whole = self.plan(k)
        first, last = rank_slice(0, self.global_batch_size, self.rank, self.world)
        start, stop = min(whole.start + first, whole.stop), min(whole.start + last, whole.stop)
        return replace(whole, start=start, stop=stop, position=whole.position + start - whole.start)

    def _origin(self, k: int) -> Stretch:
        """Where the pictures of batch `k` are read."""
        return self._part(k % self.repeat if self.repeat else k)

    def _request(self, part: Stretch) -> ReadRequest:
        return ReadRequest(split=part.split, seed=self.seed, start=part.start, stop=part.stop)

    def _size(self, k: int, bucket: Size | None) -> Size:
        """The size of the pictures of batch `k`: the square, or their bucket's, as much smaller as the square is."""
        side = self.sizes(k)
        return (side, side) if bucket is None else scaled_to(bucket, stored_px=self.stored_size_px, asked_px=side)

    def _batch(self, samples: list[Sample], part: Stretch, *, cursor: int) -> Batch:
        encoded, shape = self.payload.encoded, self._row_shape(cursor - 1, part.size)
        home = self.ring and self.ring.take(len(samples), shape)
        images = home.images if home else _empty(len(samples), *shape)
        rows, told = images.numpy(), ToldFirst(self.codec) if "+" in self.codec else None
        for row, position in enumerate(range(part.start, part.stop)):
            tried = 1
            while not self._unpack(samples[row], rows[row], told):
                samples[row] = self._replacement(part, position, tried)
                tried += 1
        positions = part.position + np.arange(len(samples))
        if self.augmentation is not None and not encoded:
            self.augmentation(rows, seed=self.seed or 0, positions=positions)
        batch = Batch(
            images=channels_first(images, encoded=encoded),
            captions=[sample.caption for sample in samples],
            keys=[sample.key for sample in samples],
            positions=(positions + self._part(cursor - 1).position - part.position).tolist(),
            cursor=cursor,
            encoded=encoded,
            cond=told and told.states(),
            features=told and told.features(),
        )
        return Parcel.of(batch, home) if home else batch

    def _row_shape(self, k: int, bucket: Size | None) -> tuple[int, int, int]:
        """Of one picture in batch `k`, in bytes."""
        if self.latents is not None:
            channels, height, width = self.latents
            if bucket is not None:
                width, height = scaled_to(bucket, stored_px=self.stored_size_px, asked_px=width)
            return channels, height, 2 * width
        width, height = self._size(k, bucket)
        return height, width, 3

    def _unpack(self, sample: Sample, row: np.ndarray, told: ToldFirst | None) -> bool:
        """Whether `row` now holds the pixels or latents of `sample`, and `told` what was said of it."""
        try:
            if told is None:
                self.payload.unpack(sample.image, row)
            else:
                self.payload.unpack(told.rest(sample.image), row)
                told.keep()
            return True
        except BadPicture as error:
            self.bad.add(sample.key)
            if len(self.bad) > self.max_bad:
                raise UserError(
                    f"{len(self.bad)} pictures of split `{self.split}` could not be read, the last one with key "
                    f"{sample.key}. "
                    f"See what else is wrong (`python -m diffusion_art.shards lint path=FOLDER`), or raise "
                    f"data.max_bad above {self.max_bad}."
                ) from error
            log.warning(
                "sample %s of split %s cannot be read (%s); the next one takes its place",
                sample.key,
                self.split,
                error,
            )
            return False

    def _replacement(self, part: Stretch, position: int, tried: int) -> Sample:
        """The sample after the `tried` ones from `position` on, none of which can be read."""
        whole = 2 * part.samples  # places that hold a whole epoch, wherever they begin; 0 where nobody knows how many
        if 0 < whole <= tried:
            raise UserError(
                f"none of {part.samples} pictures of split `{part.split}` can be read. See what is wrong with them: "
                f"`python -m diffusion_art.shards lint path=FOLDER`"
            )
        position += tried
        if self.seed is None:
            position %= part.samples
        wanted = self._request(replace(part, start=position, stop=position + 1))
        reader = self.open_reader()
        try:
            return next(iter(reader.read([wanted], window=1)))[0]
        finally:
            reader.close()


def _empty(*shape: int) -> Tensor:
    """Room for pictures (uint8); in a loader worker in memory that need not be copied for the trainer."""
    return private(*shape) if get_worker_info() is None else shared(*shape)
