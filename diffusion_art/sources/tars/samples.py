"""The samples of a WebDataset tar, from the headers of its members: members that share the name up to its first dot are
one sample, wherever they stand. No content is read.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from diffusion_art.errors import UserError
from diffusion_art.sources.folder.beside import TextsApart
from diffusion_art.sources.paths.listing import HEIC_SUFFIXES, PICTURE_SUFFIXES, stem_of
from diffusion_art.sources.paths.names import FolderNames, class_names
from diffusion_art.sources.paths.splits import FolderSplits, divide

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", *sorted(s[1:] for s in PICTURE_SUFFIXES | HEIC_SUFFIXES))
IMAGE_SUFFIXES += ("img", "image")  # of programs that know by the name alone what it is
CAPTION_SUFFIXES = ("txt", "caption", "captions", "text", "cap", "prompt")
MAX_HEADER_BYTES = 2**20  # of one member, its long name and extended attributes included


class Member(NamedTuple):
    """Where the content of one tar member lies."""

    offset: int
    bytes: int


class Entry(NamedTuple):
    """One sample: its key, its members by suffix, and the class and split that its folder in the tar names."""

    key: str
    members: dict[str, Member]
    folder: str = ""
    split: str | None = None


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


def samples_of(file: Path, *, first: int | None = None) -> list[Entry]:
    """The samples of one tar, from its headers, in the order in which their first members come.

    `first` is the number of members to look at, None for all.
    """
    latest: dict[str, dict[str, Member]] = {}
    found: list[tuple[str, dict[str, Member]]] = []
    for info in islice(headers(file), first):
        folder, _, base = info.name.removeprefix("./").rpartition("/")
        stem, _, suffix = base.partition(".")
        if not info.isreg() or info.issparse() or not stem or not suffix:
            continue
        key, suffix = f"{folder}/{stem}" if folder else stem, suffix.lower()
        if suffix in latest.get(key, (suffix,)):  # a new sample, or one more of the same name
            latest[key] = {}
            found.append((key, latest[key]))
        latest[key][suffix] = Member(info.offset_data, info.size)
    parted = _with_texts_apart([part for key, members in found for part in _by_image(key, members)])
    splits = FolderSplits(key for key, _ in parted)
    divided = divide({key: splits.of(key) for key, _ in parted})
    classes = class_names([key for key, _ in parted], FolderNames(splits))
    return [Entry(key, members, name, divided[key]) for (key, members), name in zip(parted, classes)]


def _with_texts_apart(samples: list[tuple[str, dict[str, Member]]]) -> list[tuple[str, dict[str, Member]]]:
    """The samples, those of `images/x` with what lies in `captions/x`."""
    texts = {key: members for key, members in samples if members.keys() <= {*CAPTION_SUFFIXES, "json"}}
    apart = TextsApart(f"{key}.txt" for key in texts) if texts else None
    taken: set[str] = set()
    found = []
    for key, members in samples:
        own = apart.of(key) if apart and members.keys() & set(IMAGE_SUFFIXES) else ()
        for other in map(stem_of, own):
            members = {**texts[other], **members}
            taken.add(other)
        found.append((key, members))
    return [(key, members) for key, members in found if not (key in taken and members is texts[key])]


def _by_image(key: str, members: dict[str, Member]) -> Iterator[tuple[str, dict[str, Member]]]:
    """One sample per image where dots stand in the names before them: `van.gogh.jpg`, `0001.front.png`."""
    dotted = {head for suffix in members for head, _, last in [suffix.rpartition(".")] if last in IMAGE_SUFFIXES}
    if not dotted or "" in dotted:
        yield key, members
        return
    for head in sorted(dotted):
        lone = len(dotted) == 1  # `0001.image.jpg` and `0001.caption.txt`
        own = {suffix: member for suffix, member in members.items() if lone or "." not in suffix}
        own |= {s.removeprefix(f"{head}."): member for s, member in members.items() if s.startswith(f"{head}.")}
        yield f"{key}.{head}", own


def read_member(tar: BinaryIO, member: Member, limit: int) -> bytes:
    """The content of a member. ValueError over `limit` bytes."""
    if member.bytes > limit:
        raise ValueError(f"a member of {member.bytes} bytes, at most {limit} are read")
    tar.seek(member.offset)
    return tar.read(member.bytes)


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
