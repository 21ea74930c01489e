"""Shards on disk, read by number: sample i is one look into the index and one slice of a mapped file.

Writing lives in `writer.py`, the index in `index.py`, the description of a folder in `manifest.py`; this is
the door to them all.
"""

import contextlib
import json
import mmap
import resource
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_art.streaming.files import mismatch, sha256_of
from diffusion_art.streaming.index import index_shard, open_index
from diffusion_art.streaming.manifest import Manifest, ShardInfo
from diffusion_art.streaming.writer import ShardWriter, write_manifest

__all__ = ["Manifest", "Sample", "ShardInfo", "ShardSet", "ShardWriter", "index_shard", "write_manifest"]


@dataclass(frozen=True)
class Sample:
    """One picture as stored: `key` (16 hex digits), the encoded `image`, its `caption`.

    From a stream the image is a view into the frame that brought it, and empty where it could not be read.
    """

    key: str
    image: bytes | memoryview
    caption: str


class ShardSet:
    """An opened shard folder. Reading is thread-safe; shards are mapped when first touched.

    A shard must never be rewritten in place (ShardWriter renames): what is mapped stays what it was.
    """

    def __init__(self, folder: Path, manifest: Manifest, index: dict[str, np.ndarray]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._index = index
        self._mapped: dict[tuple[str, int], tuple[mmap.mmap, memoryview]] = {}
        self._lock = threading.Lock()
        # Each map holds a file descriptor; leave half of them to everybody else.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_mapped = 2**15 if limit == resource.RLIM_INFINITY else max(1, limit // 2)

    @classmethod
    def open(cls, folder: str | Path) -> "ShardSet":
        """Open `folder` after cheap checks: files present, of the manifest's size, index in range.

        UserError for a folder that is missing, unfinished, of another version, truncated or of two builds.
        """
        folder = Path(folder)
        manifest = Manifest.load(folder)
        index = {}
        for split, shards in manifest.shards.items():
            for info in (*shards, manifest.indexes[split]):
                _check_size(folder, info)
            index[split] = open_index(folder, manifest.indexes[split], shards)
        return cls(folder, manifest, index)

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
    def digest(self) -> str:
        """Names the samples and their order; see Manifest.digest."""
        return self.manifest.digest

    def read(self, split: str, i: int) -> Sample:
        """Sample `i` of `split`. IndexError if there is none, OSError if its bytes cannot be read."""
        row = self._row(split, i)
        image, caption = self._slice(split, row, "image"), self._slice(split, row, "caption")
        return Sample(f"{int(row['key']):016x}", bytes(image), str(caption, "utf-8", "replace"))

    def key(self, split: str, i: int) -> str:
        """The key of sample `i`, from the index alone."""
        return f"{int(self._row(split, i)['key']):016x}"

    def metadata(self, split: str, i: int) -> dict[str, Any]:
        """The JSON stored with sample `i`: title, artist, date, genre, style, file name, ..."""
        return json.loads(bytes(self._slice(split, self._row(split, i), "metadata")))

    def views(
        self, split: str, places: np.ndarray
    ) -> tuple[np.ndarray, list[memoryview | None], list[memoryview | None]]:
        """Keys (uint64), captions (UTF-8) and images of many samples, as views into the shards: no copy.

        A sample that cannot be read (its shard was cut or taken away since `open`) is None, None.
        """
        rows = self._index[split][places]
        captions: list[memoryview | None] = []
        images: list[memoryview | None] = []
        # One conversion of the whole table; field access row by row would cost more than the reading.
        spans = rows[["shard", "image_offset", "image_length", "caption_offset", "caption_length"]].tolist()
        for shard, image_offset, image_length, caption_offset, caption_length in spans:
            try:
                view = self._view(split, shard, end=caption_offset + caption_length)
            except OSError:
                captions.append(None)
                images.append(None)
            else:
                captions.append(view[caption_offset : caption_offset + caption_length])
                images.append(view[image_offset : image_offset + image_length])
        return rows["key"], captions, images

    def prefetch(self, split: str, places: np.ndarray) -> None:
        """Have the kernel read these samples from disk without waiting, so that reads of a cold disk overlap.

        Costs about a microsecond a sample where they are in memory already.
        """
        rows = self._index[split][places]
        spans = rows[["shard", "image_offset", "caption_offset", "caption_length"]].tolist()
        for shard, start, caption_offset, caption_length in spans:
            with contextlib.suppress(OSError):  # `views` will say so
                tar, _ = self._mapped.get((split, shard)) or self._map(split, shard)
                start -= start % mmap.PAGESIZE
                tar.madvise(mmap.MADV_WILLNEED, start, caption_offset + caption_length - start)

    def verify(self) -> None:
        """Read every file, compare its SHA-256 with the manifest; UserError names the first that differs."""
        for split, shards in self.manifest.shards.items():
            for info in (*shards, self.manifest.indexes[split]):
                _check_size(self.folder, info)
                found = sha256_of(self.folder / info.file)
                if found != info.sha256:
                    raise mismatch(self.folder, info.file, f"SHA-256 {found}", info.sha256)

    def _row(self, split: str, i: int) -> np.void:
        index = self._index[split]
        if not 0 <= i < len(index):
            raise IndexError(f"split {split!r} of {self.name} has samples 0..{len(index) - 1}, not {i}")
        return index[i]

    def _slice(self, split: str, row: np.void, member: str) -> memoryview:
        start = int(row[f"{member}_offset"])
        end = start + int(row[f"{member}_length"])
        return self._view(split, int(row["shard"]), end=end)[start:end]

    def _view(self, split: str, shard: int, *, end: int) -> memoryview:
        """The mapped shard, proved to reach to byte `end`: to read past a file's end kills the process."""
        tar, view = self._mapped.get((split, shard)) or self._map(split, shard)
        if end > min(tar.size(), len(view)):  # size(): of the file now, which may have been cut since
            file = self.folder / self.manifest.shards[split][shard].file
            raise OSError(f"{file} has {tar.size()} bytes, its index reaches to byte {end}")
        return view

    def _map(self, split: str, shard: int) -> tuple[mmap.mmap, memoryview]:
        info = self.manifest.shards[split][shard]
        path = self.folder / info.file
        with self._lock:
            if path.stat().st_size != info.bytes:
                raise OSError(f"{path} is no longer the file that was opened, {info.bytes} bytes long")
            if len(self._mapped) >= self._max_mapped:  # the oldest goes; views keep what they look at alive
                del self._mapped[next(iter(self._mapped))]
            with path.open("rb") as file:
                tar = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._mapped[split, shard] = mapped = (tar, memoryview(tar))
        return mapped


def _check_size(folder: Path, info: ShardInfo) -> None:
    try:
        size = (folder / info.file).stat().st_size
    except FileNotFoundError:
        raise mismatch(folder, info.file, "no file of that name", f"{info.bytes} bytes") from None
    if size != info.bytes:
        raise mismatch(folder, info.file, f"{size} bytes", f"{info.bytes} bytes")
