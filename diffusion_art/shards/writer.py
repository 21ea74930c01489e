"""Write shards: WebDataset tars that come out byte for byte the same for the same samples.

A shard gets its name only when it is whole: it grows as `<name>.partial`, is flushed to disk and renamed. The
manifest goes first when a shard is replaced and comes back last, so a folder that has a manifest is whole.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import diffusion_art
from diffusion_art.errors import UserError
from diffusion_art.files import PARTIAL, publish, written
from diffusion_art.shards.buckets import write_buckets
from diffusion_art.shards.manifest import MANIFEST_FILE, Manifest, ShardInfo
from diffusion_art.shards.tables import BLOCK, MEMBERS, write_captions, write_index

_KEY = re.compile(r"[0-9a-f]{16}")
_SPLIT = re.compile(r"[a-z][a-z0-9_]*")
_MAX_MEMBER_BYTES = 2**32 - 1  # lengths are uint32 in the index


class ShardWriter:
    """Writes the samples of one split, in the order given, as `<split>-000000.tar`, `<split>-000001.tar`, ...

    A new shard begins when the next sample would carry the current one past `max_bytes`, or at `max_samples`.
    As a context manager it closes on success and drops the unfinished shard on an error.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        split: str,
        max_bytes: int = 256 * 2**20,
        max_samples: int = 10_000,
    ) -> None:
        if not _SPLIT.fullmatch(split):
            raise ValueError(f"split {split!r} must match {_SPLIT.pattern}")
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._split, self._max_bytes, self._max_samples = split, max_bytes, max_samples
        self._finished: list[ShardInfo] = []
        self._file: BinaryIO | None = None
        self._samples = self._bytes = 0
        self._sha256 = hashlib.sha256()

    def add(self, key: str, image: bytes, caption: str, metadata: Mapping[str, Any]) -> None:
        """Append a sample. `key` is 16 hex digits, unique in the data set; `metadata` must be plain JSON.

        A sample of several captions has them as a list under `captions` of its metadata, `caption` being the first.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"key {key!r} is not 16 lower-case hex digits")
        text = json.dumps(metadata, sort_keys=True, ensure_ascii=False, allow_nan=False)
        # A lone surrogate has no UTF-8 and becomes "?".
        contents = (image, caption.encode("utf-8", "replace"), text.encode("utf-8", "replace"))
        members = (_member(f"{key}.{suffix}", content) for suffix, content in zip(MEMBERS, contents, strict=True))
        sample = b"".join(members)
        full = self._samples >= self._max_samples or self._bytes + len(sample) + 2 * BLOCK > self._max_bytes
        if self._samples and full:
            self._finish_shard()
        if self._file is None:
            self._file = self._partial_path().open("wb")
        self._write(self._file, sample)
        self._samples += 1

    def close(self) -> list[ShardInfo]:
        """Finish the last shard; the shards written, in order (none when nothing was added)."""
        self._finish_shard()
        return list(self._finished)

    def abort(self) -> None:
        """Drop the unfinished shard; finished ones stay."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._partial_path().unlink(missing_ok=True)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is None:
            self.close()
        else:
            self.abort()

    def _path(self) -> Path:
        return self.folder / f"{self._split}-{len(self._finished):06d}.tar"

    def _partial_path(self) -> Path:
        return self._path().with_suffix(f".tar{PARTIAL}")

    def _write(self, file: BinaryIO, data: bytes) -> None:
        file.write(data)
        self._sha256.update(data)
        self._bytes += len(data)

    def _finish_shard(self) -> None:
        if self._file is None:
            return
        self._write(self._file, b"\0" * (2 * BLOCK))  # the end of a tar
        (self.folder / MANIFEST_FILE).unlink(missing_ok=True)
        self._file.close()
        publish(self._partial_path(), self._path(), on_disk=True)
        digest = self._sha256.hexdigest()
        self._finished.append(ShardInfo(self._path().name, self._samples, self._bytes, digest))
        self._file, self._samples, self._bytes, self._sha256 = None, 0, 0, hashlib.sha256()


def write_manifest(
    folder: str | Path,
    *,
    name: str,
    image_size_px: int,
    caption_template: str | None,
    shards: Mapping[str, Sequence[ShardInfo]],
    extra: Mapping[str, Any] | None = None,
    bucketed: bool = False,
) -> Manifest:
    """Index the shards and captions of each split and write `manifest.json`, last: it makes `folder` a whole data set.

    With `bucketed` their pictures differ in size, and a table of each split says which has what.

    UserError when a shard is not what its ShardInfo says, or when two samples, whatever their split, share
    a key.
    """
    folder = Path(folder)
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    indexed = {split: write_index(folder, split, infos) for split, infos in shards.items()}
    _refuse_duplicates([keys for _, keys in indexed.values()])
    captions = {split: write_captions(folder, split, indexed[split][0], infos) for split, infos in shards.items()}
    manifest = Manifest(
        name=name,
        image_size_px=image_size_px,
        caption_template=caption_template,
        builder_version=diffusion_art.__version__,
        shards={split: tuple(infos) for split, infos in shards.items()},
        indexes={split: info for split, (info, _) in indexed.items()},
        extra=dict(extra or {}),
        captions={split: info for split, info in captions.items() if info is not None},
        buckets={split: write_buckets(folder, split, indexed[split][0], infos) for split, infos in shards.items()}
        if bucketed
        else {},
    )
    for stray in folder.glob(f"*{PARTIAL}"):  # left by builds that were killed
        stray.unlink()
    with written(folder / MANIFEST_FILE, on_disk=True) as partial:
        partial.write_bytes(manifest.to_json().encode())
    return manifest


def _empty_header() -> bytes:
    """A USTAR header without name and size, its checksum field blank: tarfile takes ten times as long for each."""
    info = tarfile.TarInfo()
    info.mode, info.mtime, info.uid, info.gid = 0o644, 0, 0, 0
    header = info.tobuf(tarfile.USTAR_FORMAT)
    return header[:148] + b" " * 8 + header[156:]


_HEADER = _empty_header()


def _member(name: str, content: bytes) -> bytes:
    """Header, content and padding of one member; whatever could differ between two machines is fixed."""
    if len(content) > _MAX_MEMBER_BYTES:
        raise ValueError(f"{name} has {len(content)} bytes, a shard member at most {_MAX_MEMBER_BYTES}")
    header = bytearray(_HEADER)
    header[: len(name)] = name.encode("ascii")
    header[124:135] = b"%011o" % len(content)
    header[148:154] = b"%06o" % sum(header)
    header[154] = 0  # the checksum counts its own field as spaces
    return bytes(header) + content + b"\0" * (-len(content) % BLOCK)


def _refuse_duplicates(keys: list[np.ndarray]) -> None:
    ordered = np.sort(np.concatenate([np.empty(0, np.uint64), *keys]))
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise UserError(f"{len(twice)} samples have the key of another, such as {int(twice[0]):016x}; keys are unique")
