"""The pictures of a source into staged shards: in one pass as they come, and where that was not enough in a second one.

While pictures are still to come nobody knows whether the source names a validation split, nor whether a picture comes
again with another caption. When it does, the shards are written once more from the spool, where all results are.

The spool is the memory of a build that may be killed: what each finished chunk gave, in order, in one file.

    record = magic, header bytes, payload bytes, CRC-32 of both | header (JSON) | payload

Record 0 holds the settings of the build and the versions of this layout and of the rules for captions. A build that
starts again with equal settings replays the records up to the first torn one, cuts that off, and goes on from there.
Its shards are the same to the byte, for nothing but these results ever enters them.
"""

from __future__ import annotations

import itertools
import json
import shutil
import struct
import time
import zlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, BinaryIO

from rich.progress import MofNCompleteColumn, Progress, TextColumn

from diffusion_art import __version__
from diffusion_art.errors import UserError
from diffusion_art.shards.build.encode import Encoded, Encoder, Result
from diffusion_art.shards.build.engine import Engine, LocalEngine
from diffusion_art.shards.build.out_folder import CAPTION_RULES, OutFolder
from diffusion_art.shards.build.tally import Tally
from diffusion_art.shards.manifest import ShardInfo
from diffusion_art.shards.reader import ShardWriter
from diffusion_art.sources.base import BadPicture, LeftOut, Note
from diffusion_art.sources.paths.listing import told
from diffusion_art.units import progress_bar

_RECORD = struct.Struct("<4sIQI")
_MAGIC = b"DASP"
_LAYOUT = 2  # of the headers
_UNUSED = {kind.__name__: kind for kind in (BadPicture, LeftOut, Note)}


SPLITS = ("train", "val")
_IN_PROCESS_UP_TO = 64  # pictures; starting worker processes takes longer than these


def write_shards(
    encoder: Encoder, folder: OutFolder, settings: dict[str, Any], tally: Tally, *, engine: Engine, progress: bool
) -> dict[str, list[ShardInfo]]:
    """Every chunk's pictures into the staging folder; {split: its shards}.

    UserError as from `Tally`, or where there is no picture to train on.
    """
    source = encoder.source
    total = min((n for n in (source.count, tally.limit) if n is not None), default=None)
    few = source.count is not None and total is not None and total <= _IN_PROCESS_UP_TO
    if few and isinstance(engine, LocalEngine):
        engine = LocalEngine(workers=1)
    fraction = settings["val_fraction"]
    with closing(Spool(folder.spool, [__version__, CAPTION_RULES, settings])) as spool, _bar(progress) as bar:
        task = bar.add_task(f"{source.name} {encoder.image_size_px} px", total=total, rate="")
        with closing(_results(encoder, spool, engine)) as results:
            shown = _shown(results, bar, task, tally)
            shards = _write(folder, (new for chunk in shown for new in _new(chunk, tally)), tally, fraction)
        tally.check_captions()
        if tally.needs_another_pass:
            shards = _write(folder, _kept(spool, tally), tally, fraction)
    if "train" not in shards:
        bad = f" ({len(tally.bad)} bad: {tally.bad[0].name}: {tally.bad[0].reason}; ...)" if tally.bad else ""
        left_out = told(Counter(source.left_out()) + tally.left_out)
        raise UserError(
            f"{source.name} gave no picture to train on{bad}{left_out}. Check source.path and val_fraction."
        )
    return shards


def _write(
    folder: OutFolder, pictures: Iterable[Encoded], tally: Tally, val_fraction: float
) -> dict[str, list[ShardInfo]]:
    """These into new shards; once they have to be written again, they are only looked at."""
    shutil.rmtree(folder.staging, ignore_errors=True)
    with ExitStack() as stack:
        writers = {split: stack.enter_context(ShardWriter(folder.staging, split=split)) for split in SPLITS}
        for picture in pictures:
            split = tally.split(picture, val_fraction=val_fraction)
            writers[split].add(picture.key, picture.image, picture.caption, picture.metadata)
        return {split: infos for split, writer in writers.items() if (infos := writer.close())}


def _new(chunk: list[Result], tally: Tally) -> Iterator[Encoded]:
    """The pictures of a chunk that come for the first time; the others, and what is none, are counted."""
    for item in chunk:
        if isinstance(item, BadPicture):
            tally.note_bad(item)
        elif isinstance(item, LeftOut):
            tally.note_left_out(item)
        elif tally.note_good(item) and not tally.needs_another_pass:
            yield item


def _kept(spool: Spool, tally: Tally) -> Iterator[Encoded]:
    """Every picture that counts once more, with all its captions."""
    waited_for = set(tally.seen)
    for item in itertools.chain.from_iterable(spool.replay()):
        if isinstance(item, Encoded) and (number := int(item.key, 16)) in waited_for:
            waited_for.remove(number)
            yield tally.merged(item)


def _shown(results: Iterable[list[Result]], bar: Progress, task: Any, tally: Tally) -> Iterator[list[Result]]:
    """The chunks, up to where the tally is full, each moving the bar once it is dealt with."""
    started = time.monotonic()
    for chunk in results:
        yield chunk
        rate = len(tally.seen) / max(time.monotonic() - started, 1e-9)
        bar.update(task, advance=sum(not isinstance(item, Note) for item in chunk), rate=f"{rate:.0f} pictures/s")
        if tally.full:
            return


def _results(encoder: Encoder, spool: Spool, engine: Engine) -> Generator[list[Result], None, None]:
    """What each chunk gave: first as an interrupted build left it, then fresh, and remembered."""
    done = 0
    for results in spool.replay():
        done += 1
        yield results
    chunks = itertools.islice(encoder.source.chunks(), done, None)
    with closing(engine.map(encoder, chunks)) as fresh:
        for results in fresh:
            spool.append(results)
            yield results


def _bar(shown: bool) -> Progress:
    return progress_bar(shown, MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))


# ---------------------------------------------------------------------- the memory of a build that may be killed


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
