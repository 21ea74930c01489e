"""What stands elsewhere about the samples of tars: tables beside the tars, tables within them, and tars of texts alone.

    images-000.tar  captions-000.tar         000017.jpg in one, 000017.txt in the other
    00000.tar  captions.csv                  rows that name samples: key, file name or path
    pictures.tar                             images/a.jpg, images/metadata.jsonl

Samples of the same key in several tars are told apart by the numbers in the names of the tars.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffusion_art.errors import UserError
from diffusion_art.sources.paths.listing import (
    JSON_SUFFIXES,
    LINES_SUFFIXES,
    TABLE_SUFFIXES,
    TAR_SUFFIX,
    Listing,
    stem_of,
)
from diffusion_art.sources.paths.names import PictureNames
from diffusion_art.sources.paths.splits import divide
from diffusion_art.sources.tables.metadata import Metadata
from diffusion_art.sources.tables.texts import Described, alternatives, decode
from diffusion_art.sources.tars.samples import CAPTION_SUFFIXES, IMAGE_SUFFIXES, Entry, read_member, samples_of

NOT_READ = "tables beside the tars that name no sample, not read"

_FIRST, _LOOKED_AT = 16, 300  # members of a tar, to see what it holds
_IN_TARS = {suffix[1:] for suffix in LINES_SUFFIXES | {".csv", ".tsv"}}
_DIGITS = re.compile(r"\d+")


@dataclass
class Elsewhere:
    """By file and key of a sample what is told of it, the tables within tars that were read, and what was left out."""

    described: dict[tuple[str, str], Described] = field(default_factory=dict)
    splits: dict[tuple[str, str], str] = field(default_factory=dict)
    tables: set[tuple[str, str]] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)


def holds_texts_alone(file: str) -> bool:
    """Whether all samples of a tar are captions. One that does not begin so is not looked through."""
    for first in (_FIRST, None):
        found = {suffix for sample in samples_of(Path(file), first=first) for suffix in sample.members}
        if not found & set(CAPTION_SUFFIXES) or not found <= {*CAPTION_SUFFIXES, "json"}:
            return False
    return True


def tables_beside(listing: Listing) -> list[str]:
    """Tables that may tell of samples: not those that img2dataset keeps beside each tar."""
    stems = {stem_of(file) for file in listing.having({TAR_SUFFIX})}
    found = listing.having(TABLE_SUFFIXES - JSON_SUFFIXES - {".xml"})
    return [file for file in found if stem_of(file) not in stems]


def tables_within(file: str) -> bool:
    """Whether tables are among the first members of a tar."""
    return any(sample.members.keys() <= _IN_TARS for sample in samples_of(Path(file), first=_LOOKED_AT))


def read_elsewhere(
    root: Path, files: Mapping[str, str], texts: Sequence[str], tables: Sequence[str], *, within: bool
) -> Elsewhere:
    """`files` are the tars of pictures by their paths below `root`, `texts` those of texts, `tables` paths below it."""
    samples = {name: samples_of(Path(file)) for name, file in files.items()}
    places = {
        f"{name}/{sample.key}.{suffix}": (files[name], sample.key)
        for name, found in samples.items()
        for sample in found
        if (suffix := next((suffix for suffix in IMAGE_SUFFIXES if suffix in sample.members), ""))
    }
    metadata = Metadata(Listing(root, {}), PictureNames(places))
    found = Elsewhere()
    for name in tables:
        _read(metadata, name, found)
    for name, entries in samples.items() if within else ():
        for sample in entries:
            if sample.members.keys() <= _IN_TARS and _read_within(metadata, files[name], name, sample):
                found.tables.add((files[name], sample.key))
    for file in texts:
        _read_texts(metadata, file, list(files))
    found.described = {places[name]: described for name, described in metadata.described.items()}
    said = {name: metadata.described.get(name, Described()) for name in places}
    divided = divide({name: described.split or described.split_of_table for name, described in said.items()})
    found.splits = {places[name]: split for name, split in divided.items() if split}
    return found


def _read(metadata: Metadata, table: str, found: Elsewhere) -> None:
    try:
        found.left_out[NOT_READ] += not metadata.read(table)
    except UserError:
        found.left_out[NOT_READ] += 1


def _read_within(metadata: Metadata, file: str, name: str, sample: Entry) -> bool:
    suffix = min(sample.members)
    with Path(file).open("rb") as tar:
        text = decode(read_member(tar, sample.members[suffix], sample.members[suffix].bytes))
    try:
        return metadata.read(f"{name}/{sample.key}.{suffix}", text=text)
    except UserError:
        return False


def _read_texts(metadata: Metadata, file: str, tars: Sequence[str]) -> None:
    """The texts of a tar, each a caption a line, of the sample of that key: in the tar of the same number, or the only
    one that there is.
    """
    number = _DIGITS.findall(posixpath.basename(file))
    alike = [name for name in tars if _DIGITS.findall(posixpath.basename(name)) == number]
    folder, rows = alike[0] if len(alike) == 1 else "", []
    with Path(file).open("rb") as tar:
        for sample in samples_of(Path(file)):
            picture = metadata.names.find(sample.key, folder)
            members = [sample.members[suffix] for suffix in CAPTION_SUFFIXES if suffix in sample.members]
            lines = [line for one in members for line in alternatives(decode(read_member(tar, one, one.bytes)).text)]
            if picture and lines:
                rows.append((picture, {"captions": lines}))
    metadata.tell(rows)
