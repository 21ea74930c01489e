"""The folder a build writes to: whose it is, who may write, how finished files get there, by which rules the captions
there were read, and the spool that remembers what was done.

Everything grows in `<out>/.building`. Finished files are moved out of it and the manifest goes last, so a
folder with a manifest is whole, and a folder without one is never taken for shards. Finished shards are not built
again: of those that older rules left without some captions it is said how to read them anew.

The spool is the memory of a build that may be killed: what each finished chunk gave, in order, in one file.

    record = magic, header bytes, payload bytes, CRC-32 of both | header (JSON) | payload

Record 0 holds the settings of the build and the versions of this layout and of the rules for captions. A build that
starts again with equal settings replays the records up to the first torn one, cuts that off, and goes on from there.
Its shards are the same to the byte, for nothing but these results ever enters them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from diffusion_art.errors import UserError
from diffusion_art.shards.build.encode import Encoded, Result
from diffusion_art.shards.build.tally import BAD_PICTURES_FILE
from diffusion_art.shards.manifest import MANIFEST_FILE, Manifest, has_manifest
from diffusion_art.shards.side_files import SIDE_FOLDER
from diffusion_art.sources.base import BadPicture, LeftOut, Note
from diffusion_art.sources.detect import BUILDING_FOLDER
from diffusion_art.units import counted_with

_OURS = re.compile(
    r"(train|val)-\d{6}\.tar|(index|buckets)-(train|val)\.npy|captions-(train|val)\.bin|manifest\.json|bad_pictures\.txt"
)
_FACTS_OF_FILES = {
    f"source.{name}" for name in ("files", "times", "table", "beside", "elsewhere")
}  # digests, and times in ns


class OutFolder:
    """`path`, to hold a build of `settings` (plain JSON, kept in the manifest and compared).

    `again` is the whole command that asked for it, where a person typed one.
    """

    def __init__(self, path: Path, settings: dict[str, Any], *, overwrite: bool, again: str | None = None) -> None:
        self.path = path
        self.building = path / BUILDING_FOLDER
        self.staging = self.building / "shards"
        self.spool = self.building / "spool"
        self._settings = settings
        self._overwrite = overwrite
        self._again = again

    def finished(self) -> Manifest | None:
        """The manifest of a finished build of the same settings. UserError for one of others."""
        if self._overwrite or not has_manifest(self.path):
            return None
        manifest = Manifest.load(self.path)
        for name, old, new in differences(manifest.extra.get("settings"), self._settings):
            if name in _FACTS_OF_FILES:
                raise UserError(
                    f"{self.path} was built of other files than are there now: pictures, texts or tables were added, "
                    f"edited or removed since, or it is another collection. {self._ways()}"
                )
            raise UserError(
                f"{self.path} was built with {name}={old}, and now {name}={new} is asked for. {self._ways()}"
            )
        return manifest

    def _ways(self) -> str:
        """How to go on where another build is in the way."""
        if self._again is None:
            return "Give another folder (out), or replace it (overwrite)."
        other = self.path.with_name(f"{self.path.name}-{digest_of(self._settings)}")
        return f"Build beside it: `{self._again} {shlex.quote(f'out={other}')}`; or replace it: {self.to_replace()}"

    def to_replace(self) -> str | None:
        """What to type for a build anew in the same place; None where no command is known."""
        return self._again and f"`{self._again} {shlex.quote(f'out={self.path}')} overwrite=true`"

    def check_free(self) -> None:
        """UserError unless the folder is new, empty, to be replaced, or left by an interrupted build."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path} is a file. Give a folder: out=data/NAME.")
        names = {path.name for path in self.path.iterdir()}
        ours = {name for name in names if _OURS.fullmatch(name)}
        foreign = names - ours - {BUILDING_FOLDER, SIDE_FOLDER}
        if BUILDING_FOLDER not in names and not has_manifest(self.path):  # tars, but of somebody else
            foreign |= ours - {BAD_PICTURES_FILE}
        if foreign:
            raise UserError(
                f"{self.path} holds other files ({min(foreign)}). Give a new or empty folder: out=data/NAME."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One build of a folder at a time; a second process waits here."""
        while True:
            self.building.mkdir(parents=True, exist_ok=True)
            path = self.building / "lock"
            with path.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # The build before us removed the lock with everything else: then ours is on a nameless file.
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    yield
                    return

    def publish(self) -> None:
        """Move the staged files into place; what an older build left goes first."""
        (self.path / MANIFEST_FILE).unlink(missing_ok=True)
        shutil.rmtree(self.path / SIDE_FOLDER, ignore_errors=True)  # computed of what goes now
        for old in self.path.iterdir():
            if _OURS.fullmatch(old.name):
                old.unlink()
        for file in sorted(self.staging.iterdir(), key=lambda file: (file.name == MANIFEST_FILE, file.name)):
            file.replace(self.path / file.name)
        shutil.rmtree(self.building)

    def abandon(self) -> None:
        """Leave nothing half-written, nor an empty folder; finished shards stay."""
        shutil.rmtree(self.building, ignore_errors=True)
        with suppress(OSError):  # not empty
            self.path.rmdir()


def digest_of(settings: dict[str, Any]) -> str:
    """Six hex digits for the name of a folder that holds a build of `settings`, whatever its captions are made by."""
    content = {name: value for name, value in settings.items() if name != "caption_template"}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=3).hexdigest()


def differences(before: Any, after: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted name, old, new) wherever two JSON values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*after, *before]):
            yield from differences(before.get(key), after.get(key), f"{name}.{key}" if name else key)
    elif before != after:
        yield name or "settings", before, after


# ---------------------------------------------------------------------- shards of older rules

CAPTION_RULES = 2  # raise it when more is read as captions (captions/, sources/); shards without the number have 0
RULES_KEY = "caption_rules"  # of the manifest's `extra`

_LACKING = (
    ("without_caption", "has none", "have none"),
    ("folder_as_caption", "has its folder's name", "have their folder's name"),
)
_COLLECTIONS = ("folder", "table", "webdataset", "parquet")


def of_older_rules(folder: Path, way: str | None = None) -> str:
    """What to say of the finished shards at `folder`: "" unless older rules read the captions of a collection there,
    and found none for some pictures, or names of folders. `way` says what to type; None is for shards whose collection
    nobody named.
    """
    manifest = Manifest.load(folder)
    counts, source = manifest.noted("counts"), manifest.noted("settings").get("source")
    if not isinstance(source, dict) or source.get("kind") not in _COLLECTIONS or manifest.caption_template == "":
        return ""
    lacking = [
        counted_with(count, one, more)
        for name, one, more in _LACKING
        if isinstance(count := counts.get(name), int) and count
    ]
    rules = manifest.extra.get(RULES_KEY, 0)
    if not lacking or not isinstance(rules, int) or rules >= CAPTION_RULES:
        return ""
    prepare = ["python", "-m", "diffusion_art.prepare", "source=any", "source.path=COLLECTION", f"out={folder}"]
    command = shlex.join([*prepare, f"image_size_px={manifest.image_size_px}", "overwrite=true"])
    return (
        f"{folder}: its captions were read by older rules, and {' and '.join(lacking)}. More is read as captions now; "
        f"to read these anew: {way or f'`{command}`'}"
    )


# ---------------------------------------------------------------------- the spool

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
