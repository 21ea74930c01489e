"""A listed folder of pictures -> one entry per picture: what lies beside it, what tables and its path say of it."""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from diffusion_art.captions.columns import caption_columns
from diffusion_art.errors import UserError
from diffusion_art.sources.folder.beside import Neighbours, columns_beside
from diffusion_art.sources.folder.copies import COPIES
from diffusion_art.sources.folder.sidecars import read_sidecars
from diffusion_art.sources.paths.listing import (
    JSON_SUFFIXES,
    SIDECAR_SUFFIXES,
    TAR_SUFFIX,
    TEXT_SUFFIXES,
    Listing,
    suffix_of,
)
from diffusion_art.sources.paths.names import (
    REGULARISATION,
    FolderNames,
    PictureNames,
    class_names,
    columns_of_folders,
    names_of_columns,
    painting,
    paintings,
    regularisation,
    title_words,
)
from diffusion_art.sources.paths.splits import TEST_SPLIT, FolderSplits, agreed, divide, splits_of_prefixes
from diffusion_art.sources.tables.classes import ClassNames, class_lists, together
from diffusion_art.sources.tables.lists import read_list, read_side_by_side
from diffusion_art.sources.tables.metadata import NO_TABLE, ORPHAN_TEXTS, Metadata, is_strict
from diffusion_art.sources.tables.table import could_be_table, first_lines
from diffusion_art.sources.tables.texts import Described

REPEATS = "pictures in folders with repeats (10_name), each kept once"
COMPANIONS = "pictures in another column of a table than those that it describes, without captions of their own"
NO_SUFFIX = "pictures without a suffix, known by their first bytes"
DAMAGED_TABLE = "files that look like metadata and cannot be read"
PASSED_BY = "json files beside those of captions, not read"

_LOOKED_AT = 8
# What img2dataset knows of links stands beside each picture as well.
_IMG2DATASET = re.compile(r"(?:^|/)\d{5,}(?:_stats\.json|\.parquet)$")


class Entry(NamedTuple):
    """One picture: its path below the root, the files beside it, and what is known of it before it is read."""

    file: str
    texts: tuple[str, ...]
    json: str | None
    sidecars: tuple[str, ...]
    from_path: dict[str, str]
    columns: dict[str, str]
    captions: tuple[str, ...]
    split: str | None


@dataclass(frozen=True)
class Collection:
    """The pictures to learn from, their columns, {what is left out: how many}, {what is odd about others: how many}."""

    entries: list[Entry]
    columns: tuple[str, ...]
    all_columns_known: bool  # not where pictures have JSON files or sidecars of their own
    alike: bool  # whether what one template names is what all pictures have, as far as was looked at
    class_names: ClassNames
    left_out: Counter[str]
    notes: Counter[str]


def collect(listing: Listing, copies: Mapping[str, str]) -> Collection:
    """Every picture of a folder but `copies`, {copy: picture}, with the tables in it that name any.

    Raises:
        UserError: a `metadata.*` file is damaged.
    """
    pictures = [file for file in listing.pictures() if file not in copies]
    beside = Neighbours(listing, pictures)
    metadata = Metadata(listing, PictureNames(pictures, copies))
    lists = class_lists(listing)
    class_names = together(lists[file] for file in _read_tables(beside, metadata, lists))
    if others := metadata.told_apart(copies):
        pictures = [file for file in listing.pictures() if file not in copies or file in others]
    metadata.left_out[COPIES] += len(copies) - len(others)
    metadata.left_out["tars beside the pictures"] += len(listing.having({TAR_SUFFIX}))
    apart = regularisation(pictures)
    metadata.left_out[REGULARISATION] += len(apart)
    others = metadata.companions - metadata.described.keys() - beside.texts.keys() - beside.json.keys() - apart
    others -= copies.keys()
    metadata.left_out[COMPANIONS] += len(others)
    apart |= others
    return assemble(listing, [file for file in pictures if file not in apart], beside, metadata, class_names)


def assemble(
    listing: Listing, pictures: list[str], beside: Neighbours, metadata: Metadata, class_names: ClassNames
) -> Collection:
    """The entries of `pictures` but for those of a test split."""
    folders, nothing, left_out, notes = FolderSplits(pictures), Described(), metadata.left_out, metadata.notes
    known = {file: metadata.described.get(file, nothing) for file in pictures}
    by_name = splits_of_prefixes(pictures)
    splits = divide(
        {
            file: agreed(row=known[file].split, folder=folders.of(file), table=known[file].split_of_table)
            or by_name.get(file)
            for file in pictures
        }
    )
    kept = [file for file in pictures if splits[file] != "test"]
    left_out[TEST_SPLIT] += len(pictures) - len(kept)
    notes[NO_SUFFIX] += sum(not suffix_of(file) for file in kept)
    from_paths = _columns_of_paths(kept, FolderNames(folders), notes)
    entries = [
        Entry(
            file,
            texts=beside.texts.get(file, ()),
            json=beside.json.get(file),
            sidecars=beside.sidecars.get(file, ()),
            from_path=from_path,
            columns=known[file].columns,
            captions=tuple(known[file].captions),
            split=splits[file],
        )
        for file, from_path in zip(kept, from_paths)
    ]
    jsons = [entry.json for entry in entries if entry.json]
    sidecars = [entry.sidecars for entry in entries if entry.sidecars]
    names = [*(["caption"] if any(entry.texts for entry in entries) else []), *next(iter(from_paths), ())]
    rows = columns_beside(listing.root, jsons[:: max(1, len(jsons) // _LOOKED_AT)][:_LOOKED_AT])
    names += [*metadata.columns, *(name for row in rows for name in row)]
    names += _columns_of_sidecars(listing.root, sidecars)
    art = caption_columns(columns := tuple(dict.fromkeys(["file_name", *names]))).art
    kinds = {*rows, *(tuple(entry.columns) for entry in entries)}
    return Collection(
        entries,
        columns=columns,
        all_columns_known=not jsons and not sidecars,
        alike=all(set(caption_columns(kind).art) <= {*art} for kind in kinds),
        class_names=class_names,
        left_out=+left_out,
        notes=+notes,
    )


def _columns_of_sidecars(root: Path, files: list[tuple[str, ...]]) -> list[str]:
    """The columns of the first few."""
    with suppress(OSError):
        return [name for some in files[:_LOOKED_AT] for name in read_sidecars(root, some)[0]]
    return []


def _read_tables(beside: Neighbours, metadata: Metadata, lists: Mapping[str, ClassNames]) -> list[str]:
    """Every table that names pictures, and those of the `lists` of classes that do not, or whose numbers other tables
    have, which are told. A table of captions makes other JSON files there needless.
    """
    files, of_classes = beside.others, []
    of_captions = {posixpath.dirname(file) for file in files if _is_json_of_captions(file)}
    records: dict[str, list[str]] = defaultdict(list)  # files of no table, by folder
    texts: dict[str, list[str]] = defaultdict(list)
    for file in sorted(files, key=lambda file: (file in lists, file.count("/"), is_strict(file), file)):
        suffix, folder = suffix_of(file), posixpath.dirname(file)
        if _IMG2DATASET.search(file):
            continue
        if file in lists and metadata.has_numbers_of(lists[file]):
            of_classes.append(file)
            continue
        if suffix in SIDECAR_SUFFIXES:
            metadata.left_out[ORPHAN_TEXTS] += 1
        elif suffix in TEXT_SUFFIXES and not could_be_table(metadata.root / file, metadata.finder(file)):
            if not read_list(metadata, file):
                (of_classes if file in lists else texts[folder]).append(file)
        elif suffix in JSON_SUFFIXES and folder in of_captions and not _is_json_of_captions(file):
            metadata.left_out[PASSED_BY] += 1
        else:
            try:
                strict = is_strict(file) and not _is_one_object(metadata.root / file)
                found = metadata.read(file, strict=strict)
                if not found and file in lists:
                    metadata.left_out[NO_TABLE] -= 1
                    of_classes.append(file)
                elif not found and suffix in JSON_SUFFIXES | {".xml"}:
                    records[folder].append(file)
            except UserError:
                if is_strict(file):
                    raise
                metadata.left_out[DAMAGED_TABLE] += 1
    left = [file for found in texts.values() for file in found]
    for folder, found in records.items():
        if not metadata.read_records(folder, found, but=beside.json):
            left += found
    metadata.read_alone(left)
    metadata.read_joined()
    metadata.left_out[ORPHAN_TEXTS] += sum(
        len(some) - len(read_side_by_side(metadata, some)) for some in texts.values()
    )
    return of_classes


def _is_one_object(path: Path) -> bool:
    """Whether it is the JSON of one object, as of a library or a data set, which many programs call metadata.json."""
    return suffix_of(path.name) in JSON_SUFFIXES and "".join(first_lines(path)[:1]).lstrip().startswith("{")


def _is_json_of_captions(file: str) -> bool:
    return suffix_of(file) in JSON_SUFFIXES and "caption" in posixpath.basename(file).lower()


def _columns_of_paths(files: list[str], folders: FolderNames, notes: Counter[str]) -> list[dict[str, str]]:
    """Per picture: `folder` where nearly all lie in telling ones, `repeats`, what a painting's name says, and what
    folders such as `style=Cubism` do.
    """
    classes, repeats = class_names(files, folders), [folders.of(file)[1] for file in files]
    notes[REPEATS] += sum(times not in ("", "1") for times in repeats)
    in_classes, repeated, painted = any(classes), any(repeats), paintings(files)
    by_folders, found = dict.fromkeys(names_of_columns(files), ""), []
    for file, name, times in zip(files, classes, repeats):
        columns = {"artist": "", "title": "", "date": "", **painting(file)} if painted else {}
        if painted and in_classes:
            columns["style"] = title_words(name)
        if in_classes:
            columns["folder"] = name
        if repeated:
            columns["repeats"] = times
        found.append(columns | {**by_folders, **columns_of_folders(file)} if by_folders else columns)
    return found
