"""What frozen encoders said of a data set, computed once and kept beside its shards.

    <shards>/precomputed/<kind>-<digest>/records.bin   one record after the other
                                         index.npy     keys (uint64) and where their records begin, sorted by key
                                         about.json    whose they are, written last: a folder that has it is whole

    record = CRC-32 of what follows, payload bytes u32, key u64, shape 4 x u16 | payload

All little-endian, numbers of the payload bfloat16. `latents`, and the `features` that an image tower gives, have the
key of their sample and the shape c h w. `text` states have a hash of their caption as key and the shape tokens, their
size, that of the pooled vector, and the tokens that the encoder reads; the payload is the token states without padding,
then the pooled vector.

On the wire a form is called by kind and digest, `latents:0f3a...`, and text states and features travel before the
picture's bytes, in this order: `jpeg+text:0f3a...+features:77c1...`. The digest is that of the encoder, so that nobody
trains with another's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zlib import crc32

import numpy as np

from diffusion_art.errors import UserError
from diffusion_art.files import mapped, written

SIDE_FOLDER = "precomputed"
LATENTS, TEXT, FEATURES = KINDS = "latents", "text", "features"

_HEADER = struct.Struct("<IIQ4H")
_RECORDS, _INDEX, _ABOUT = "records.bin", "index.npy", "about.json"
_PARTIAL = "records.partial"
_FORMAT, _VERSION = "diffusion-art-side-file", 1
_DIGEST_DIGITS = 16

log = logging.getLogger(__name__)

Buffer = bytes | bytearray | memoryview


class BadRecord(Exception):
    """The bytes are no record, or are damaged."""


class Record(NamedTuple):
    """One record, its payload a view."""

    key: int
    shape: tuple[int, int, int, int]
    payload: memoryview
    bytes: int  # with its header


def record_of(key: int, shape: Sequence[int], payload: bytes) -> bytes:
    """A record as the file holds it and the wire carries it."""
    rest = _HEADER.pack(0, len(payload), key, *shape, *[0] * (4 - len(shape)))[4:] + payload
    return struct.pack("<I", crc32(rest)) + rest


def read_record(data: Buffer, start: int = 0) -> Record:
    """The record that begins at `start`. BadRecord where it is cut or does not match its checksum."""
    view = memoryview(data)
    if len(view) - start < _HEADER.size:
        raise BadRecord("it is cut short")
    checksum, size, key, *shape = _HEADER.unpack_from(view, start)
    end = start + _HEADER.size + size
    if end > len(view) or crc32(view[start + 4 : end]) != checksum:
        raise BadRecord("it is damaged: its checksum is another")
    return Record(key, (shape[0], shape[1], shape[2], shape[3]), view[start + _HEADER.size : end], end - start)


def caption_key(caption: Buffer) -> int:
    """The key of a caption's record."""
    return int.from_bytes(hashlib.blake2b(caption, digest_size=8).digest(), "little")


def digest_of(encoder: Mapping[str, Any]) -> str:
    """16 hex digits for an encoder, of what it says of itself: of its weights alone where it names them."""
    told = {"class": encoder.get("class"), "sha256": encoder["sha256"]} if encoder.get("sha256") else dict(encoder)
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:_DIGEST_DIGITS]


def folder_of(shards: Path, kind: str, digest: str, caption_template: str | None = None) -> Path:
    """Where records of this kind and encoder lie; those of captions told by another template lie elsewhere."""
    name = f"{kind}-{digest}"
    if kind == TEXT and caption_template is not None:
        name += f"-{hashlib.sha256(caption_template.encode()).hexdigest()[:6]}"
    return shards / SIDE_FOLDER / name


class SideFile:
    """The records of `folder`, whose about.json is `about`, mapped. Reading is thread-safe.

    Raises:
        ValueError, OSError: files missing, or not of the size they must have.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder, self.about = folder, about
        index = np.load(folder / _INDEX, allow_pickle=False)
        self._map = mapped(folder / _RECORDS)
        self._view = memoryview(self._map)
        if index.shape != (about["records"], 2) or index.dtype != np.uint64 or len(self._view) != about["bytes"]:
            raise ValueError(f"{folder} does not hold what its {_ABOUT} says")
        if int(index[:, 1].max()) + _HEADER.size > len(self._view):
            raise ValueError(f"{folder / _INDEX} points past the end of {_RECORDS}")
        self._keys, self._starts = np.ascontiguousarray(index[:, 0]), np.ascontiguousarray(index[:, 1])

    @property
    def codec(self) -> str:
        """Its name on the wire."""
        return f"{self.about['kind']}:{self.about['digest']}"

    def views(self, keys: np.ndarray) -> list[memoryview | None]:
        """The record of each key (uint64), None where there is none, as views into the file."""
        if self._map.size() != len(self._view):  # to read past a file's end kills the process
            log.error("%s has been cut while it was served; delete it and make it again", self.folder)
            return [None] * len(keys)
        at = np.searchsorted(self._keys, keys)
        at[at == len(self._keys)] = 0
        starts = np.where(self._keys[at] == keys, self._starts[at].astype(np.int64), -1)
        return [None if start < 0 else self._record(start) for start in starts.tolist()]

    def of_captions(self, captions: Sequence[memoryview | None]) -> list[memoryview | None]:
        """The record of each caption (UTF-8)."""
        return self.views(np.array([caption_key(caption or b"") for caption in captions], np.uint64))

    def prefetch(self, keys: np.ndarray) -> None:
        """Have the kernel read these records from disk without waiting."""
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        for start in self._starts[at].tolist():
            first = start - start % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, first, min(2 * mmap.PAGESIZE, len(self._view) - first))

    def _record(self, start: int) -> memoryview:
        size = _HEADER.unpack_from(self._view, start)[1]
        return self._view[start : start + _HEADER.size + size]


class SideForm:
    """The pictures of a shard set as the records of their samples: a `Form` (reader.py)."""

    def __init__(self, file: SideFile, keys: Callable[[str], np.ndarray]) -> None:
        self._file, self._keys = file, keys

    def views(self, split: str, samples: np.ndarray) -> list[memoryview | None]:
        return self._file.views(self._keys(split)[samples])

    def prefetch(self, split: str, samples: np.ndarray) -> None:
        self._file.prefetch(self._keys(split)[samples])


def joined(*parts: Sequence[memoryview | None]) -> list[memoryview | None]:
    """Records, and the picture behind them; None where one of them is."""
    samples = zip(*parts, strict=True)
    return [None if None in sample else memoryview(b"".join(sample)) for sample in samples]  # type: ignore[arg-type]


def side_files(shards: Path, *, digest: str, caption_template: str | None) -> Iterator[SideFile]:
    """What was computed of the shards with this digest in the folder `shards`; captions told by this template."""
    for file in sorted((shards / SIDE_FOLDER).glob(f"*/{_ABOUT}")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads(file.read_bytes())
            if (about["format"], about["version"], about["shards"]) != (_FORMAT, _VERSION, digest):
                continue
            if about["kind"] == TEXT and about["caption_template"] != caption_template:
                continue
            if about["kind"] in KINDS:
                yield SideFile(file.parent, about)


class SideWriter:
    """Appends records to `folder`, and goes on after those that an interrupted run left there.

    Use as `with SideWriter(...) as writer`, then `add`, and `finish` once all are there.

    Raises:
        UserError: no leave to write, or no room.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.about = {"format": _FORMAT, "version": _VERSION, **json.loads(json.dumps(about))}
        self._keys: list[int] = []
        self._starts: list[int] = []
        self._end = 0
        self._known: set[int] = set()

    @property
    def finished(self) -> bool:
        """Whether just this is there already, and whole."""
        with suppress(OSError, ValueError, KeyError):
            there = json.loads((self.folder / _ABOUT).read_bytes())
            if {name: there.get(name) for name in self.about} == self.about:
                SideFile(self.folder, there)  # a copy may have been cut
                return True
        return False

    def __enter__(self) -> SideWriter:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / _ABOUT).unlink(missing_ok=True)
            self._file: BinaryIO = self._opened()
        except OSError as error:
            raise UserError(f"cannot write beside the shards, into {self.folder} ({error.strerror}).") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, key: int) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def add(self, records: Sequence[bytes]) -> None:
        """Append them, and let nothing of them be lost if this process is killed."""
        for record in records:
            self._note(read_record(record))
            self._file.write(record)
        self._file.flush()

    def finish(self, **more: Any) -> None:
        """From now on the file is whole."""
        self._file.close()
        index = np.array([self._keys, self._starts], np.uint64).T
        index = np.ascontiguousarray(index[np.argsort(index[:, 0], kind="stable")])
        with written(self.folder / _INDEX, on_disk=True) as partial, partial.open("wb") as file:
            np.save(file, index, allow_pickle=False)
        (self.folder / _PARTIAL).replace(self.folder / _RECORDS)
        told = {**self.about, "records": len(index), "bytes": self._end, **more}
        with written(self.folder / _ABOUT, on_disk=True) as partial:
            partial.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")

    def _note(self, record: Record) -> None:
        self._keys.append(record.key)
        self._starts.append(self._end)
        self._known.add(record.key)
        self._end += record.bytes

    def _opened(self) -> BinaryIO:
        """The file that an interrupted run left, up to its first torn record; one of other shards is emptied."""
        path, whose = self.folder / _PARTIAL, self.folder / f"{_PARTIAL}.json"
        text = json.dumps(self.about, sort_keys=True)
        if not (path.exists() and whose.exists() and whose.read_text() == text):
            whose.write_text(text)
            return path.open("wb")
        file = path.open("r+b")
        if path.stat().st_size:
            with mapped(path) as there, suppress(BadRecord):
                self._replay(there)
        file.truncate(self._end)
        file.seek(self._end)
        return file

    def _replay(self, there: mmap.mmap) -> None:
        with memoryview(there) as view:
            while self._end < len(view):
                record = read_record(view, self._end)
                record.payload.release()
                self._note(record)
