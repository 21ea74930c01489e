"""The memory of a build that may be killed: what each finished chunk gave, in order, in one file.

    record = magic, header bytes, payload bytes, CRC-32 of both | header (JSON) | payload

Record 0 holds the settings of the build and the version of this layout. A build that starts again with equal settings
replays the records up to the first torn one, cuts that off, and goes on from there. Its shards are the same to the
byte, for nothing but these results ever enters them.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from diffusion_art.shards.build.encode import Encoded, Result
from diffusion_art.sources.base import BadPicture, LeftOut, Note

_RECORD = struct.Struct("<4sIQI")
_MAGIC = b"DASP"
_LAYOUT = 2  # of the headers
_UNUSED = {kind.__name__: kind for kind in (BadPicture, LeftOut, Note)}


class Spool:
    """One spool file, opened: first iterate over `replay()` to its end, then `append`."""

    def __init__(self, path: Path, settings: Any) -> None:
        self._path = path
        self._settings = json.loads(json.dumps([_LAYOUT, settings]))
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")

    def replay(self) -> Iterator[list[Result]]:
        """The results of each finished chunk, from the first. None when the file belongs to other settings."""
        self._file.seek(0)
        first = self._read()
        if first is None or first[0] != self._settings:
            self._cut(0)
            self._write(self._settings, b"")
            return
        end = self._file.tell()
        while (record := self._read()) is not None:
            end = self._file.tell()
            yield _unpack(*record)
        self._cut(end)

    def append(self, results: list[Result]) -> None:
        """Remember one more finished chunk."""
        header = [
            [item.key, item.caption, item.metadata, item.split, len(item.image)]
            if isinstance(item, Encoded)
            else [type(item).__name__, item.name, item.reason]
            for item in results
        ]
        self._write(header, b"".join(item.image for item in results if isinstance(item, Encoded)))

    def close(self) -> None:
        self._file.close()

    def _write(self, header: Any, payload: bytes) -> None:
        text = json.dumps(header).encode()
        crc = zlib.crc32(payload, zlib.crc32(text))
        self._file.write(_RECORD.pack(_MAGIC, len(text), len(payload), crc) + text + payload)
        self._file.flush()

    def _read(self) -> tuple[Any, bytes] | None:
        """The next record; None at the end, or where it is torn."""
        start = self._file.read(_RECORD.size)
        if len(start) < _RECORD.size:
            return None
        magic, header_bytes, payload_bytes, crc = _RECORD.unpack(start)
        left = self._path.stat().st_size - self._file.tell()
        if magic != _MAGIC or header_bytes + payload_bytes > left:
            return None
        text, payload = self._file.read(header_bytes), self._file.read(payload_bytes)
        if zlib.crc32(payload, zlib.crc32(text)) != crc:
            return None
        return json.loads(text), payload

    def _cut(self, end: int) -> None:
        self._file.seek(end)
        self._file.truncate()


def _unpack(header: list[list[Any]], payload: bytes) -> list[Result]:
    results: list[Result] = []
    offset = 0
    for entry in header:
        if len(entry) == 3:
            kind, *told = entry
            results.append(_UNUSED[kind](*told))
        else:
            key, caption, metadata, split, length = entry
            image = payload[offset : offset + length]
            results.append(Encoded(key, image, caption, metadata, split))
            offset += length
    return results
