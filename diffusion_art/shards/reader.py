"""Shards read by number: sample i is one look into the index and one slice of a mapped file.

The files are those of a folder, or copies of those at an address (store.py). Writing lives in `writer.py`, index and
captions in `tables.py`, the description of a folder in `manifest.py`; this is the door to them all.
"""

import contextlib
import json
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from diffusion_art.shards.buckets import BucketOrder, BucketTable
from diffusion_art.shards.manifest import Manifest, OneSize, ShardInfo, one_sized, split_of
from diffusion_art.shards.order import Order, OrderMemo, epoch_order
from diffusion_art.shards.places import Address, place_of
from diffusion_art.shards.recaptioning import Recaptioner, alternatives_in
from diffusion_art.shards.side_files import LATENTS, TEXT, SideFile, SideForm, joined, side_files
from diffusion_art.shards.store import Store, open_store
from diffusion_art.shards.tables import CaptionTable, index_shard, open_index
from diffusion_art.shards.writer import ShardWriter, write_manifest

__all__ = ["Manifest", "Sample", "ShardInfo", "ShardSet", "ShardWriter", "index_shard", "write_manifest"]


class Sample(NamedTuple):
    """One picture as stored: `key` (16 hex digits), the encoded `image`, its `caption`.

    From a stream the image is a view into the frame that brought it, and empty where it could not be read.
    """

    key: str
    image: bytes | memoryview
    caption: str


class Form(Protocol):
    """The pictures of one shard set in another form than the stored one. `samples` are numbers within a split."""

    def views(self, split: str, samples: np.ndarray) -> list[memoryview | None]: ...

    def prefetch(self, split: str, samples: np.ndarray) -> None: ...


class ShardSet:
    """An opened shard folder. Reading is thread-safe; shards are mapped when first touched.

    A shard must never be rewritten in place (ShardWriter renames): what is mapped stays what it was.
    """

    def __init__(self, store: Store, index: dict[str, np.ndarray]) -> None:
        self.place, self.folder = store.place, store.folder  # as people know it, and where its files lie
        self.manifest = manifest = store.manifest
        self.forms: dict[str, Form] = {}  # of its pictures, beside the stored one (pixels.py)
        self.texts: dict[str, SideFile] = {}  # states of its captions (side_files.py)
        self.features: dict[str, SideFile] = {}  # of its pictures
        self._store = store
        self._index = index
        self._tables = {
            split: CaptionTable(store.folder, info, manifest.splits[split]) for split, info in manifest.captions.items()
        }
        self._tables_of_buckets = {
            split: BucketTable(store.folder, info, manifest.splits[split]) for split, info in manifest.buckets.items()
        }
        self._recaptioner: Recaptioner | None = None
        self._memo = OrderMemo(self.order)

    @classmethod
    def open(cls, folder: str | Path | Address, *, caption_template: str | None = None) -> "ShardSet":
        """Open `folder` after cheap checks: files present, in it, of the manifest's size, index in range.

        At an address only manifest, index and captions are read; shards when they are needed.
        `caption_template` makes other captions of the samples' columns than are stored, None leaves them.

        UserError for a folder that is missing, unfinished, of another version, truncated or of two builds, or
        with a link that leads out of it; or for a template that does not fit its columns.
        """
        place = place_of(folder)
        try:
            opened = cls._of(open_store(place))
        except FileNotFoundError:  # a copy that another process evicted before it was mapped
            opened = cls._of(open_store(place))
        if caption_template not in (None, opened.manifest.caption_template):
            opened._recaptioner = Recaptioner(opened, caption_template)
        opened._find_precomputed()
        return opened

    @classmethod
    def _of(cls, store: Store) -> "ShardSet":
        shards, indexes = store.manifest.shards, store.manifest.indexes
        return cls(store, {split: open_index(store.folder, indexes[split], shards[split]) for split in shards})

    def _find_precomputed(self) -> None:
        """The forms that lie beside the shards."""
        for found in side_files(self.folder, digest=self.digest, caption_template=self.caption_template):
            if found.about["kind"] == LATENTS:
                self.forms[found.codec] = SideForm(found, self.keys)
            else:
                (self.texts if found.about["kind"] == TEXT else self.features)[found.codec] = found

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def splits(self) -> dict[str, int]:
        """Samples per split."""
        return self.manifest.splits

    @property
    def image_size_px(self) -> int:
        return self.manifest.image_size_px

    @property
    def caption_template(self) -> str | None:
        """What the captions are made by; None: as their source has them."""
        return self._recaptioner.template if self._recaptioner else self.manifest.caption_template

    @property
    def digest(self) -> str:
        """Names the samples and their order; see Manifest.digest."""
        return self.manifest.digest

    def order(self, split: str, seed: int | None, epoch: int) -> Order:
        """Place -> sample of one epoch of `split`, or of a bucket of one; `seed` None is the order of the index."""
        name, bucket = split_of(split)
        if bucket is None:
            return epoch_order(self.splits[split], seed=seed, epoch=epoch, split=split, digest=self.digest)
        members = self.members(name, bucket)
        order = epoch_order(len(members), seed=seed, epoch=epoch, split=split, digest=self.digest)
        return BucketOrder(order, [(members, 0)], samples_of_split=self.splits[name])

    @property
    def buckets(self) -> dict[str, Mapping[str, int]]:
        """Per split the samples of each bucket, by its name; empty where all pictures are squares."""
        return {split: info.counts for split, info in self.manifest.buckets.items()}

    @property
    def bucket_shares(self) -> dict[str, dict[str, int]]:
        """Of a mixture with weights, how often each bucket comes; here as often as it has pictures."""
        return {}

    def members(self, split: str, bucket: str) -> np.ndarray:
        """The samples (int64) of a bucket, in the order of the index; none where a split has not that bucket."""
        table = self._tables_of_buckets.get(split)
        return np.empty(0, np.int64) if table is None else table.members(bucket)

    def one_sized(self) -> list[OneSize]:
        """All samples, in parts whose pictures have one size."""
        return one_sized(self.splits, self.buckets, image_size_px=self.image_size_px)

    def samples(self, split: str, seed: int | None, epoch: int, start: int, stop: int) -> np.ndarray:
        """The samples (int64, numbers for `views`) at places [start, stop) of that order."""
        return self._memo.samples(split, seed, epoch, start, stop)

    def read(self, split: str, i: int) -> Sample:
        """Sample `i` of `split`. IndexError if there is none, OSError if its bytes cannot be read."""
        row = self._row(split, i)
        image = self._store.member(split, row, "image")
        return Sample(f"{int(row['key']):016x}", bytes(image), self.captions(split, i)[0])

    def captions(self, split: str, i: int) -> tuple[str, ...]:
        """All captions of sample `i`, at least one, which may be ""; errors as from `read` and `metadata`."""
        self._row(split, i)
        if self._recaptioner is not None:
            return self._recaptioner.texts(split, i)
        if split in self._tables:
            return tuple(self._tables[split].texts(i))
        return (str(self.stored_caption(split, i), "utf-8", "replace"),)

    def stored_caption(self, split: str, i: int) -> bytes:
        """The caption (UTF-8) that sample `i` has in its shard, whatever captions are told."""
        return bytes(self._store.member(split, self._row(split, i), "caption"))

    def without_caption(self) -> int:
        """How many samples have no caption: by the manifest, or the index. By another template than they are stored
        with it is that of 20,000 samples from all over, in proportion.
        """
        if self._recaptioner is not None:
            return sum(self._recaptioner.without_caption(split, samples) for split, samples in self.splits.items())
        if isinstance(known := self.manifest.noted("counts").get("without_caption"), int):
            return known
        return sum(int(np.count_nonzero(rows["caption_length"] == 0)) for rows in self._index.values())

    def captions_agree(self, split: str, i: int) -> bool:
        """Whether the table of captions has those of sample `i`'s metadata, as far as they can be read."""
        with contextlib.suppress(OSError):
            row = self._row(split, i)
            stored = alternatives_in(self._store.member(split, row, "metadata"))
            told = self._tables[split].texts(i) if split in self._tables else []
            return stored == told or (not stored and len(told) < 2)
        return True

    def tells_several(self, split: str) -> bool:
        """Whether a sample may have several captions, so that `views` is to be given draws."""
        return split_of(split)[0] in self._tables or self._recaptioner is not None

    def several(self, split: str) -> int:
        """How many samples have several captions in store."""
        return self._tables[split].several if split in self._tables else 0

    def rows(self, split: str) -> np.ndarray:
        """The index (INDEX_ROW), one row per sample: a map of its file, read from disk where touched."""
        return self._index[split]

    def keys(self, split: str) -> np.ndarray:
        """The keys (uint64) of all samples: a column of the index."""
        return self._index[split]["key"]

    def key(self, split: str, i: int) -> str:
        """The key of sample `i`, from the index alone."""
        return f"{int(self._row(split, i)['key']):016x}"

    def metadata(self, split: str, i: int) -> dict[str, Any]:
        """The JSON stored with sample `i`: title, artist, date, genre, style, file name, ...

        ValueError (RecursionError, if it is nested a thousand deep) when it is no JSON object.
        """
        found = json.loads(bytes(self._store.member(split, self._row(split, i), "metadata")))
        if not isinstance(found, dict):
            raise ValueError(f"the metadata is {str(found)[:100]!r}, no JSON object")
        return found

    @property
    def codecs(self) -> tuple[str, ...]:
        """In what forms `views` gives pictures: `jpeg`, as stored, and those that were made of it; each also behind the
        text states and features that there are, as in jpeg+text:DIGEST+features:DIGEST.
        """
        texts, features = (["", *(f"+{name}" for name in found)] for found in (self.texts, self.features))
        forms = ("jpeg", *self.forms)
        return tuple(f"{form}{text}{seen}" for text in texts for seen in features for form in forms)

    def views(
        self, split: str, places: np.ndarray, codec: str = "jpeg", draws: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[memoryview | None], list[memoryview | None]]:
        """Keys (uint64), captions (UTF-8) and images of many samples, as views into the shards: no copy.

        Of several captions the first, or the one on which a sample's draw falls (order.draws). A sample that cannot
        be read (its shard was cut or taken away since `open`) is None, None. `split` may be a bucket of one: the
        numbers are those within the split all the same.
        """
        split, _ = split_of(split)
        rows = self._index[split].take(places)
        captions = self._captions(split, places, rows, draws)
        form, *before = codec.split("+")
        if form in self.forms:
            images = self.forms[form].views(split, places)
        else:
            images = self._members(split, rows, "image")
        if before:
            images = joined(*(self._records(name, rows["key"], captions) for name in before), images)
        if None in captions or None in images:
            for i, pair in enumerate(zip(captions, images, strict=True)):
                if None in pair:
                    captions[i] = images[i] = None
        return rows["key"], captions, images

    def copy_ahead(self, *, beside_bytes: int = 0) -> None:
        """Begin to copy all shards to this machine, where they come from an address and all fit into its cache, with
        `beside_bytes` of other data sets that are copied too.
        """
        self._store.copy_ahead(beside_bytes)

    def prefetch(self, split: str, places: np.ndarray, codec: str = "jpeg") -> Future[None] | None:
        """Have these samples brought without waiting, so that reads of a cold disk, or of a network, overlap.

        None where `views` need not wait for them; else `views` does so, or what is given here ends.
        """
        if not self._store.may_wait():
            return None
        split, _ = split_of(split)
        if (form := codec.partition("+")[0]) in self.forms:
            self.forms[form].prefetch(split, places)
        return self._store.prefetch(split, self._index[split][places])

    def _captions(
        self, split: str, places: np.ndarray, rows: np.ndarray, draws: np.ndarray | None
    ) -> list[memoryview | None]:
        if self._recaptioner is not None:
            return self._recaptioner.views(split, places, draws)
        if split in self._tables:
            return self._tables[split].views(places, draws)
        return self._members(split, rows, "caption")

    def _records(self, name: str, keys: np.ndarray, captions: list[memoryview | None]) -> list[memoryview | None]:
        """What was said of each caption, or seen in each picture."""
        return self.texts[name].of_captions(captions) if name in self.texts else self.features[name].views(keys)

    def _row(self, split: str, i: int) -> np.void:
        index = self._index[split]
        if not 0 <= i < len(index):
            raise IndexError(f"split {split!r} of {self.name} has samples 0..{len(index) - 1}, not {i}")
        return index[i]

    def _members(self, split: str, rows: np.ndarray, member: str) -> list[memoryview | None]:
        """One member of each of `rows`, None where its bytes are not there."""
        # Column by column: field access row by row would cost more than the reading.
        shards, starts, lengths = rows["shard"].tolist(), rows[f"{member}_offset"], rows[f"{member}_length"]
        spans = list(zip(shards, starts.tolist(), lengths.tolist(), strict=True))
        with contextlib.suppress(OSError, IndexError):  # then look at each row by itself
            tars = self._store.tars(split, rows)
            found = [tars[shard][start : start + length] for shard, start, length in spans]
            if sum(map(len, found)) == int(lengths.sum()):
                return [*found]
        return [self._member_or_none(split, row, member) for row in rows]

    def _member_or_none(self, split: str, row: np.void, member: str) -> memoryview | None:
        try:
            return self._store.member(split, row, member)
        except OSError:
            return None
