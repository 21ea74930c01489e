"""Pictures in WebDataset tars: members that share the name up to its first dot are one sample.

    000017.jpg  000017.txt  000017.json     image, caption, columns

Headers are scanned once; members are then read by offset and never unpacked, so a member's name can lead
nowhere. Only images, `.txt` and `.json` are ever looked at: no pickles, no links, no pipes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from diffusion_art.errors import UserError
from diffusion_art.sources.base import BadPicture, Picture
from diffusion_art.sources.captions import default_template
from diffusion_art.sources.naming import data_set_name

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "ppm")
CAPTION_SUFFIXES = ("txt", "caption")
SAMPLES_PER_CHUNK = 128
MAX_TEXT_BYTES = 2**20  # of a caption or its json
MAX_IMAGE_BYTES = 2**28  # 256 MiB; 50 megapixels of raw RGB are 150
MAX_HEADER_BYTES = 2**20  # of one member, its long name and extended attributes included


class Member(NamedTuple):
    """Where the content of one tar member lies."""

    offset: int
    bytes: int


class Entry(NamedTuple):
    """One sample: its key and its members by suffix."""

    key: str
    members: dict[str, Member]


class Chunk(NamedTuple):
    file: str
    entries: list[Entry]


class Tars:
    """Source: one WebDataset tar, or a folder of them in the order of their names.

    Raises:
        UserError: nothing there, a compressed tar, or (while building) a truncated one.
    """

    def __init__(self, path: str | Path, *, name: str | None = None, caption_template: str | None = None) -> None:
        self.path = Path(path)
        self.name = name or data_set_name(self.path)
        self._files = [str(file) for file in _find(self.path)]
        for file in self._files:
            _check_start(Path(file))
        self.count = None
        self.columns = None
        self.caption_template = caption_template or self._template_of_first()

    def describe(self) -> dict[str, Any]:
        root = self.path if self.path.is_dir() else self.path.parent
        files = [[Path(file).relative_to(root).as_posix(), Path(file).stat().st_size] for file in self._files]
        return {"kind": "webdataset", "files": files}

    def left_out(self) -> dict[str, int]:
        return {}

    def chunks(self) -> Iterator[Chunk]:
        for file in self._files:
            entries: list[Entry] = []
            for entry in _scan(Path(file)):
                entries.append(entry)
                if len(entries) == SAMPLES_PER_CHUNK:
                    yield Chunk(file, entries)
                    entries = []
            if entries:
                yield Chunk(file, entries)

    def pictures(self, chunk: Chunk) -> Iterator[Picture | BadPicture]:
        file = Path(chunk.file)
        with file.open("rb") as tar:
            for entry in chunk.entries:
                name = f"{file.name} {entry.key}"
                try:
                    image = _read(tar, entry, IMAGE_SUFFIXES, MAX_IMAGE_BYTES)
                    columns = _columns(tar, entry) | {"filename": f"{entry.key}.{_suffix(entry)}"}
                except ValueError as error:
                    yield BadPicture(name, str(error))
                    continue
                if image:
                    yield Picture(image, columns, identity=image, name=name)
                else:
                    yield BadPicture(name, "no image among its members")

    def _template_of_first(self) -> str | None:
        """The template that suits the first sample: the files of one data set are alike."""
        first = next(iter(self.chunks()), None)
        pictures = self.pictures(first) if first else iter(())
        known = next((picture.columns for picture in pictures if isinstance(picture, Picture)), {})
        return default_template([name for name, value in known.items() if value])


def _find(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"there is no {path}. Give a tar file or a folder of them: source.path=...")
    files = sorted(file for file in path.glob("*.tar") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise UserError(f"{path} holds no .tar file. Give the folder that does: source.path=...")
    return files


def _check_start(file: Path) -> None:
    with file.open("rb") as opened:
        head = opened.read(4)
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd")):
        raise UserError(f"{file} is compressed, which pictures do not need. Decompress it first (gunzip, unxz).")


def headers(file: Path) -> Iterator[tarfile.TarInfo]:
    """The header of every member of a tar, none of their contents. UserError when it is no whole tar."""
    size = file.stat().st_size
    try:
        with _HeaderFile(file) as opened, tarfile.open(fileobj=opened, mode="r:") as tar:
            while (info := tar.next()) is not None:
                # tarfile remembers every header; a shard may have a million
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
                if info.size < 0 or info.offset_data + info.size > size:
                    raise tarfile.ReadError(f"member {info.name} ends at byte {info.offset_data + info.size}")
                yield info
            if tar.offset < size and not _only_zeros(file, tar.offset):
                raise tarfile.ReadError(f"no member header at byte {tar.offset}")
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{file} is no whole tar ({error}; the file has {size} bytes). Copy or download it again."
        ) from error


def _scan(file: Path) -> Iterator[Entry]:
    """The samples of one tar, from its headers. A sample's members stand together, as WebDataset has it."""
    key, members = "", {}
    for info in headers(file):
        folder, _, base = info.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        if not info.isreg() or info.issparse() or not stem or not suffix:
            continue
        own_key = f"{folder}/{stem}" if folder else stem
        if own_key != key and members:
            yield Entry(key, members)
        if own_key != key:
            key, members = own_key, {}
        members[suffix.lower()] = Member(info.offset_data, info.size)
    if members:
        yield Entry(key, members)


class _HeaderFile(io.FileIO):
    """A file from which headers are read: a header may say that it is gigabytes long, and is not believed."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes, at most {MAX_HEADER_BYTES} are read")
        return super().read(size)


def _only_zeros(file: Path, offset: int) -> bool:
    """Whether a tar's end, or nothing, follows: at most 1 MiB is looked at."""
    with file.open("rb") as opened:
        opened.seek(offset)
        return not opened.read(2**20).strip(b"\0")


def _suffix(entry: Entry) -> str:
    return next((suffix for suffix in IMAGE_SUFFIXES if suffix in entry.members), "")


def _read(tar: BinaryIO, entry: Entry, suffixes: tuple[str, ...], limit: int) -> bytes:
    """The first member of one of `suffixes`, b"" where there is none. ValueError over `limit` bytes."""
    member = next((entry.members[suffix] for suffix in suffixes if suffix in entry.members), None)
    if member is None:
        return b""
    if member.bytes > limit:
        raise ValueError(f"a member of {member.bytes} bytes, at most {limit} are read")
    tar.seek(member.offset)
    return tar.read(member.bytes)


def _columns(tar: BinaryIO, entry: Entry) -> dict[str, str]:
    columns: dict[str, str] = {}
    if text := _read(tar, entry, ("json",), MAX_TEXT_BYTES):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its .json cannot be read ({error})") from None
        if isinstance(found, dict):
            plain = {name: value for name, value in found.items() if isinstance(value, (str, int, float))}
            columns = {str(name): str(value) for name, value in plain.items()}
    if caption := _read(tar, entry, CAPTION_SUFFIXES, MAX_TEXT_BYTES):
        columns["caption"] = caption.decode("utf-8-sig", "replace")
    return columns
