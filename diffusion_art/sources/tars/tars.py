"""Pictures in WebDataset tars: members that share the name up to its first dot are one sample.

    000017.jpg  000017.txt  000017.json     image, captions (one a line), columns

A sample's members may stand anywhere in its tar. Headers are scanned once; members are then read by offset and never
unpacked, so a member's name can lead nowhere. Only images, texts and `.json` are ever looked at: no pickles, no
links, no pipes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from diffusion_art.captions.captioner import default_template
from diffusion_art.errors import UserError
from diffusion_art.sources.base import BadPicture, Item, LeftOut, Note, Picture
from diffusion_art.sources.folder.beside import about
from diffusion_art.sources.paths.listing import TAR_SUFFIX, Listing, digest, files_at, listing_at
from diffusion_art.sources.paths.names import columns_of_folders, data_set_name, names_of_columns
from diffusion_art.sources.paths.splits import TEST_SPLIT, splits_of_files
from diffusion_art.sources.pictures import no_reader, pointer
from diffusion_art.sources.tables.classes import class_names_in, with_names
from diffusion_art.sources.tables.texts import MAX_TEXT_BYTES, Described, decode, overlaid
from diffusion_art.sources.tars.captions import (
    Elsewhere,
    holds_texts_alone,
    read_elsewhere,
    tables_beside,
    tables_within,
)
from diffusion_art.sources.tars.samples import CAPTION_SUFFIXES, IMAGE_SUFFIXES, Entry, read_member, samples_of

SAMPLES_PER_CHUNK = 128
MAX_IMAGE_BYTES = 2**28  # 256 MiB; 50 megapixels of raw RGB are 150

_NAMED_CAPTION = re.compile(r"((captions?|texts?|prompts?)([_-]?\d+)?|\d+)\.(txt|text|caption)")
_TABLES = {"csv", "tsv", "jsonl", "ndjson", "parquet"}
_MEMBERS_LOOKED_AT = 300  # of the first tar, to see which columns there are


class Chunk(NamedTuple):
    file: str
    entries: list[Entry]
    split: str | None  # of the whole tar
    elsewhere: Mapping[str, Described]  # by key what other files say of its samples


class Tars:
    """Source: one WebDataset tar, or a folder with tars at any depth, in the order of their names.

    Raises:
        UserError: nothing there, a compressed tar, or (while building) a truncated one.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        caption_template: str | None = None,
        listing: Listing | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = name or data_set_name(self.path)
        listing = listing or listing_at(self.path)
        found = files_at(self.path, listing, TAR_SUFFIX, what="a tar file or a folder of them")
        self._left_out = listing.left_out + Counter({"pictures beside the tars": len(listing.pictures())})
        for file in found:
            _check_start(Path(file))
        self._texts = [file for file in found if len(found) > 1 and holds_texts_alone(file)]
        self._texts = self._texts if len(self._texts) < len(found) else []
        found = [file for file in found if file not in self._texts]
        self._tables = tables_beside(listing)
        self._tables_digest = digest({file: listing.files[file] for file in self._tables}) if listing.files else ""
        self._within = tables_within(found[0])
        self._class_names = class_names_in(listing)
        self._files = splits_of_files({file: self._below_root(file) for file in found})
        self.count = None
        self.columns = None
        self.caption_template = caption_template or self._template_of_first()

    def describe(self) -> dict[str, Any]:
        facts = [Path(file).stat() for file in self._files]
        files = [[self._below_root(file), of.st_size] for file, of in zip(self._files, facts)]
        times = [of.st_mtime_ns for of in facts]  # a tar is padded: another content may well have its size
        told = {"kind": "webdataset", "version": 2, "files": files, "times": times}
        more = {
            "splits": list(self._files.values()) if len(set(self._files.values())) > 1 else [],
            "folder_columns": names_of_columns(self._below_root(file) for file in self._files),
            "classes": self._class_names,
            "elsewhere": [self._tables_digest, self._within, *self._facts_of_texts()] if self._told_elsewhere else [],
        }
        return told | {name: value for name, value in more.items() if value}  # without them as earlier versions told it

    def left_out(self) -> dict[str, int]:
        tests = sum(len(samples_of(Path(file))) for file, split in self._files.items() if split == "test")
        return dict(self._left_out + Counter({TEST_SPLIT: tests}) + self._elsewhere.left_out)

    @property
    def _told_elsewhere(self) -> bool:
        return bool(self._tables or self._within or self._texts)

    @cached_property
    def _elsewhere(self) -> Elsewhere:
        if not self._told_elsewhere:
            return Elsewhere()
        root = self.path if self.path.is_dir() else self.path.parent
        tars = {self._below_root(file): file for file in self._files}
        return read_elsewhere(root, tars, self._texts, self._tables, within=self._within)

    def _facts_of_texts(self) -> list[list[Any]]:
        facts = [(file, Path(file).stat()) for file in self._texts]
        return [[self._below_root(file), of.st_size, of.st_mtime_ns] for file, of in facts]

    def __getstate__(self) -> dict[str, Any]:
        """What is told elsewhere travels in the chunks."""
        return {name: value for name, value in self.__dict__.items() if name != "_elsewhere"}

    def chunks(self) -> Iterator[Chunk]:
        for file, split in self._files.items():
            entries = samples_of(Path(file)) if split != "test" else []
            for start in range(0, len(entries), SAMPLES_PER_CHUNK):
                yield self._chunk(file, entries[start : start + SAMPLES_PER_CHUNK], split)

    def _chunk(self, file: str, entries: list[Entry], split: str | None) -> Chunk:
        """With what is told elsewhere of its samples, and without the tables that told it."""
        told = self._elsewhere
        kept = [entry for entry in entries if (file, entry.key) not in told.tables]
        kept = [entry._replace(split=told.splits.get((file, entry.key), entry.split)) for entry in kept]
        known = {entry.key: told.described[file, entry.key] for entry in kept if (file, entry.key) in told.described}
        return Chunk(file, kept, split, known)

    def pictures(self, chunk: Chunk) -> Iterator[Item]:
        by_folders = columns_of_folders(self._below_root(chunk.file))
        with Path(chunk.file).open("rb") as tar:
            for entry in chunk.entries:
                name = f"{Path(chunk.file).name} {entry.key}"
                if entry.split == "test":
                    yield LeftOut(name, TEST_SPLIT)
                    continue
                try:
                    yield from self._read(tar, entry, chunk, name=name, by_folders=by_folders)
                except ValueError as error:
                    yield BadPicture(name, str(error))

    def _read(
        self, tar: BinaryIO, entry: Entry, chunk: Chunk, *, name: str, by_folders: dict[str, str]
    ) -> Iterator[Item]:
        """ValueError for a member that is too large, or JSON that cannot be read."""
        suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix in entry.members), "")
        image = read_member(tar, entry.members[suffix], MAX_IMAGE_BYTES) if suffix else b""
        json_member = entry.members.get("json") or entry.members.get(f"{suffix}.json")
        row = decode(read_member(tar, json_member, MAX_TEXT_BYTES)) if json_member and json_member.bytes else None
        members = [entry.members[suffix] for suffix in _caption_suffixes(entry.members, suffix)]
        texts = [decode(read_member(tar, member, MAX_TEXT_BYTES)) for member in members]
        if not image and entry.members.keys() <= _TABLES:
            yield LeftOut(name, "tables within a tar that name no picture in it")
            return
        if not image:
            yield BadPicture(name, f"no image among its members ({', '.join(sorted(entry.members))})")
            return
        if reason := no_reader(image):
            yield LeftOut(name, reason)
            return
        known = about(texts, row)
        yield from (Note(name, note) for note in known.notes)
        told = chunk.elsewhere.get(entry.key, Described())
        captions = known.captions or told.captions or known.row_captions
        columns = {**by_folders, **columns_of_folders(entry.key), **known.columns}
        if member := entry.members.get("cls"):
            told_class = {"label": decode(read_member(tar, member, MAX_TEXT_BYTES)).text.strip()}
            columns = {**_named(with_names(told_class, self._class_names)), **columns}
        columns = overlaid(columns, told.columns)
        if known.text:
            columns["caption"] = known.text if len(captions) < 2 else captions[0]
        if entry.folder and not columns:
            columns["folder"] = entry.folder
        columns["filename"] = f"{entry.key}.{suffix}"
        several = tuple(captions) if len(captions) > 1 else ()
        columns = with_names(columns, self._class_names)
        yield Picture(image, columns, identity=image, name=name, captions=several, split=chunk.split or entry.split)

    def _below_root(self, file: str) -> str:
        return Path(file).relative_to(self.path if self.path.is_dir() else self.path.parent).as_posix()

    def _template_of_first(self) -> str | None:
        """The template that suits the first sample: the files of one data set are alike."""
        file, split = next(item for item in self._files.items() if item[1] != "test")
        pictures = self.pictures(self._chunk(file, samples_of(Path(file), first=_MEMBERS_LOOKED_AT), split))
        known = next((picture.columns for picture in pictures if isinstance(picture, Picture)), {})
        return default_template([name for name, value in known.items() if value])


def _check_start(file: Path) -> None:
    with file.open("rb") as opened:
        head = opened.read(32)
    if other := pointer(head):
        raise UserError(f"{file} is {other}.")
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd")):
        raise UserError(f"{file} is compressed, which pictures do not need. Decompress it first (gunzip, unxz).")


def _named(columns: dict[str, str]) -> dict[str, str]:
    """Those that are more than a number."""
    return {name: text for name, text in columns.items() if not text.isdigit()}


def _caption_suffixes(members: Collection[str], image: str) -> list[str]:
    """The plain ones, also behind that of the image (`jpg.txt`), then those of more words: `caption_1.txt`, `0.txt`; or
    the only text that there is.
    """
    plain = [*CAPTION_SUFFIXES, *(f"{image}.{suffix}" for suffix in CAPTION_SUFFIXES)]
    named = sorted(suffix for suffix in members if _NAMED_CAPTION.fullmatch(suffix))
    others = [suffix for suffix in members if suffix.endswith(".txt")]  # `outputs.txt`
    return [*(suffix for suffix in plain if suffix in members), *named] or (others if len(others) == 1 else [])
