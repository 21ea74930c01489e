"""Shards by their specification: one folder, or several mixed by weight, read as if they were one data set.

    shards = open_shards("data/wikiart-128px")
    shards = open_shards([{"path": "data/wikiart-128px", "weight": 0.8}, {"path": "data/photos-128px", "weight": 0.2}])

With weights, every 1000 positions of the shuffled order hold exactly each component's share (mixed_order.py).
Without any, the folders are one pool: every sample comes exactly once per epoch. Either way an epoch is as many
positions as there are samples, and the order is a pure function of (digest, split, seed, epoch).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np

from diffusion_art.errors import UserError
from diffusion_art.shards.buckets import BucketOrder
from diffusion_art.shards.manifest import of_bucket, split_of
from diffusion_art.shards.mixed_order import BLOCK_POSITIONS, InterleavedOrder, MixedOrder, quotas_of
from diffusion_art.shards.order import EpochOrder, Order, OrderMemo
from diffusion_art.shards.places import ShardSpec, components_of
from diffusion_art.shards.reader import ShardSet
from diffusion_art.shards.store import all_of
from diffusion_art.sizes import log_ratio, size_named

_VERSION = 1
_BATCHES = 2**20  # that share out the buckets of a mixture: so many that a rare bucket has no more than its share


def open_shards(spec: ShardSpec) -> "Shards":
    """What `spec` names, opened and checked as ShardSet.open does it; UserError as from there and Mixture."""
    components = components_of(spec)
    parts = [ShardSet.open(component.path, caption_template=component.caption_template) for component in components]
    if len(parts) == 1:
        return parts[0]
    weights = [component.weight for component in components if component.weight is not None]
    return Mixture(parts, weights=weights or None)


class Mixture:
    """Several shard sets read as one; its interface is ShardSet's.

    Sample i of a split is numbered through the components in their order. A component that lacks a split stays out
    of it, and the shares of the others grow. Reading is thread-safe.

    UserError when two components are the same data set, or differ in image size, or when a weight is so small that
    it has no position in a block.
    """

    def __init__(self, components: Sequence[ShardSet], *, weights: Sequence[float] | None = None) -> None:
        self.components = tuple(components)
        self.weights = None if weights is None else tuple(weights)
        self._refuse_unequal()
        splits = sorted({split for part in components for split in part.splits})
        self._sizes = {split: tuple(part.splits.get(split, 0) for part in components) for split in splits}
        self._offsets = {split: np.array([0, *accumulate(sizes)]) for split, sizes in self._sizes.items()}
        self._memo = OrderMemo(self.order)
        self._quotas = {split: self._share(sizes) for split, sizes in self._sizes.items()}
        for part, share in zip(components, self._quotas.get("train") or (1,) * len(components), strict=True):
            if share == 0 and self.weights is not None:
                raise UserError(
                    f"{part.place} would have none of every {BLOCK_POSITIONS} training pictures: it has "
                    f"{part.splits.get('train', 0)} of them and too small a weight among {list(self.weights)}; leave "
                    f"it out of data.path, or raise its weight"
                )

    @cached_property
    def name(self) -> str:
        return " + ".join(part.name for part in self.components)

    @cached_property
    def splits(self) -> dict[str, int]:
        """Samples per split, all components together."""
        return {split: sum(sizes) for split, sizes in self._sizes.items()}

    @property
    def image_size_px(self) -> int:
        return self.components[0].image_size_px

    @cached_property
    def caption_template(self) -> str | None:
        """The template that all components share; None when they differ."""
        templates = {part.caption_template for part in self.components}
        return templates.pop() if len(templates) == 1 else None

    @cached_property
    def digest(self) -> str:
        """128 bits (hex) that name the samples and how they are mixed."""
        content = [[part.digest for part in self.components], [self._quotas[split] for split in sorted(self._quotas)]]
        canonical = json.dumps(["diffusion-art-mixture", _VERSION, content], separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]

    def order(self, split: str, seed: int | None, epoch: int) -> Order:
        """Place -> sample of one epoch: mixed by weight, or shuffled all together, or (seed None) interleaved."""
        name, bucket = split_of(split)
        if bucket is not None:
            return self._bucket_order(name, bucket, seed, epoch)
        return self._order_of(split, self._sizes[split], self._quotas[split], seed, epoch)

    def _order_of(
        self, name: str, sizes: Sequence[int], quotas: Sequence[int] | None, seed: int | None, epoch: int
    ) -> Order:
        if seed is None:
            return InterleavedOrder(sizes)
        if quotas is None:
            return EpochOrder(sum(sizes), seed=seed, epoch=epoch, split=name, digest=self.digest)
        digests = [part.digest for part in self.components]
        return MixedOrder(sizes, quotas, seed=seed, epoch=epoch, split=name, digests=digests, digest=self.digest)

    def _bucket_order(self, split: str, bucket: str, seed: int | None, epoch: int) -> Order:
        members = [part.members(split, bucket) for part in self.components]
        sizes = [len(own) for own in members]
        order = self._order_of(of_bucket(split, bucket), sizes, self._quotas_in(split, sizes), seed, epoch)
        parts = list(zip(members, self._offsets[split].tolist(), strict=False))
        return BucketOrder(order, parts, samples_of_split=self.splits[split])

    @cached_property
    def buckets(self) -> dict[str, Mapping[str, int]]:
        """Per split the samples of each bucket, all components together."""
        found: dict[str, Counter[str]] = {}
        for part in self.components:
            for split, counts in part.buckets.items():
                found.setdefault(split, Counter()).update(counts)
        return {
            split: {name: counts[name] for name in sorted(counts, key=lambda name: log_ratio(size_named(name)))}
            for split, counts in found.items()
        }

    @cached_property
    def bucket_shares(self) -> dict[str, dict[str, int]]:
        """Per split, how often each bucket comes in so many batches together, where there are weights: of a component
        as often as it has pictures there, in proportion to its share.
        """
        if self.weights is None:
            return {}
        found = {}
        for split, counts in self.buckets.items():
            inside = {name: [len(part.members(split, name)) for part in self.components] for name in counts}
            weights = [sum(self._weights_in(split, sizes)) for sizes in inside.values()]
            shares = quotas_of(weights, total=max(_BATCHES, self.splits[split]), least=1)
            found[split] = dict(zip(counts, shares, strict=True))
        return found

    def _quotas_in(self, split: str, sizes: Sequence[int]) -> tuple[int, ...] | None:
        """Positions of each component in a block of a bucket, of which it has so many samples."""
        weights = self._weights_in(split, sizes)
        return quotas_of(weights, least=1) if any(weights) else None

    def _weights_in(self, split: str, sizes: Sequence[int]) -> list[float]:
        """The part of each component's share that falls on so many of its samples."""
        quotas = self._quotas[split] or (0,) * len(sizes)
        totals = self._sizes[split]
        return [quota * size / max(1, total) for quota, size, total in zip(quotas, sizes, totals, strict=True)]

    def samples(self, split: str, seed: int | None, epoch: int, start: int, stop: int) -> np.ndarray:
        """The samples (int64, numbers for `views`) at places [start, stop) of that order."""
        return self._memo.samples(split, seed, epoch, start, stop)

    def shares(self, split: str) -> list[float]:
        """The part of each component in the shuffled order of `split`; they add up to 1."""
        shares = self._quotas[split] or self._sizes[split]
        return [share / max(1, sum(shares)) for share in shares]

    def captions(self, split: str, i: int) -> tuple[str, ...]:
        """All captions of sample `i`. IndexError if there is none; else as from ShardSet.captions."""
        part, own = self._locate(split, i)
        return part.captions(split, own)

    def metadata(self, split: str, i: int) -> dict[str, Any]:
        """The JSON stored with sample `i`; errors as from `captions`."""
        part, own = self._locate(split, i)
        return part.metadata(split, own)

    def _locate(self, split: str, i: int) -> tuple[ShardSet, int]:
        if not 0 <= i < self.splits[split]:
            raise IndexError(f"split {split!r} of {self.name} has samples 0..{self.splits[split] - 1}, not {i}")
        number = int(np.searchsorted(self._offsets[split], i, side="right")) - 1
        return self.components[number], i - int(self._offsets[split][number])

    def tells_several(self, split: str) -> bool:
        """Whether a sample may have several captions."""
        return any(part.tells_several(split) for part in self.components)

    def without_caption(self) -> int:
        """ShardSet.without_caption of all components."""
        return sum(part.without_caption() for part in self.components)

    @property
    def codecs(self) -> tuple[str, ...]:
        """The forms that every component has its pictures in; see ShardSet.codecs."""
        return tuple(name for name in self.components[0].codecs if all(name in part.codecs for part in self.components))

    def views(
        self, split: str, places: np.ndarray, codec: str = "jpeg", draws: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[memoryview | None], list[memoryview | None]]:
        """Keys (uint64), captions and images of many samples, as ShardSet.views gives them."""
        keys = np.empty(len(places), np.uint64)
        captions: list[memoryview | None] = [None] * len(places)
        images: list[memoryview | None] = [None] * len(places)
        for part, here, own in self._by_component(split, places):
            keys[here], *found = part.views(split, own, codec, None if draws is None else draws[here])
            for i, caption, image in zip(here.tolist(), *found, strict=True):
                captions[i], images[i] = caption, image
        return keys, captions, images

    def prefetch(self, split: str, places: np.ndarray, codec: str = "jpeg") -> Future[None] | None:
        """Have these samples brought without waiting, as ShardSet.prefetch does."""
        coming = [part.prefetch(split, own, codec) for part, _, own in self._by_component(split, places)]
        return all_of(future for future in coming if future is not None)

    def _by_component(self, split: str, places: np.ndarray) -> Iterator[tuple[ShardSet, np.ndarray, np.ndarray]]:
        """Of each component that has some of `places`: itself, which ones, and their numbers within it."""
        split, _ = split_of(split)
        offsets = self._offsets[split]
        owners = np.searchsorted(offsets, places, side="right") - 1
        for number in np.unique(owners).tolist():
            here = np.flatnonzero(owners == number)
            yield self.components[number], here, places[here] - offsets[number]

    def _share(self, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
        """Positions of each component in a block, where there are weights."""
        if self.weights is None or not any(sizes):
            return None
        return quotas_of([weight if size else 0.0 for weight, size in zip(self.weights, sizes, strict=True)])

    def _refuse_unequal(self) -> None:
        first, *others = self.components
        for number, part in enumerate(others, start=1):
            for earlier in self.components[:number]:
                if earlier.digest == part.digest:
                    raise UserError(
                        f"{earlier.place} and {part.place} hold the same samples; name one of them in data.path, "
                        f"with the sum of the weights"
                    )
            if part.image_size_px != first.image_size_px:
                raise UserError(
                    f"{first.place} holds pictures of {first.image_size_px} px and {part.place} of "
                    f"{part.image_size_px} px; mix shards of one size (`python -m diffusion_art.prepare source=NAME "
                    f"image_size_px={first.image_size_px}`)"
                )
        bucketed = [part for part in self.components if part.buckets]
        if bucketed and (square := next((part for part in self.components if not part.buckets), None)):
            raise UserError(
                f"{bucketed[0].place} holds pictures in buckets and {square.place} squares: build both in one way "
                "(bucket_step_px of prepare) to mix them"
            )


Shards: TypeAlias = ShardSet | Mixture


def parts_of(shards: Shards) -> tuple[ShardSet, ...]:
    """The data sets that a mixture consists of, or the one."""
    return shards.components if isinstance(shards, Mixture) else (shards,)
