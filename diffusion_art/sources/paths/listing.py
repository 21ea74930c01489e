"""Every file below a folder that a source may read, found in one walk; and what the suffixes of files say: which are
pictures, texts, tables or tars, and why others are not read.

Linked folders are followed; each real folder is read once, so that a link back into the collection ends there.
Hidden files and folders, and those in which systems keep thumbnails, do not belong to a collection. What looks
like a picture and cannot be read is counted by its suffix. Only of files without any suffix the first bytes are read.
A `fingerprint` tells whether anything there has changed, known or not.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from diffusion_art.errors import UserError
from diffusion_art.sources.pictures import HEAD_BYTES, HEIC_EXTRA, PICKLE, can_read_heic, looks_like_picture, other_kind

_NOT_FOLDERS_OF_PICTURES = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
_NAMED_BY_LINKS = "blobs/"  # the cache of Hugging Face: files by their hashes, to which links with names lead
_FOLDERS_OF_DATA = {".zarr", ".lance"}  # folders that are one data set, of files without telling names
_THUMBNAILS = {"thumbs.db", "ehthumbs.db", "thumbnails-digikam.db", "digikam4.db"}
_TOLD = 5  # suffixes of unknown files in a message
_MASKS = ("-masklabel.png", "-condlabel.png")  # OneTrainer keeps them beside the pictures


@dataclass
class Listing:
    """The files below `root` by their posix paths, in the order of these, and what was left out: {why: how many}.
    `unknown` counts files of other kinds by their suffix.

    The value of a file is its size and time of change, as text: a hundred thousand of them weigh little.
    """

    root: Path
    files: dict[str, str]
    left_out: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)

    @cached_property
    def _by_suffix(self) -> dict[str, list[str]]:
        return grouped((file[file.rfind(".") :].lower(), file) for file in self.files)

    def having(self, suffixes: Iterable[str]) -> list[str]:
        """The files with one of `suffixes`, which are in lower case."""
        found = [self._by_suffix[suffix] for suffix in set(suffixes) if suffix in self._by_suffix]
        return found[0].copy() if len(found) == 1 else sorted(file for files in found for file in files)

    def pictures(self) -> list[str]:
        named, bare = self.having(picture_suffixes()), self._without_suffix
        return sorted([*named, *bare]) if bare else named

    @cached_property
    def _without_suffix(self) -> list[str]:
        """Files whose names end in no suffix are listed where they are pictures."""
        return [file for file in self.files if not suffix_of(file)]

    def without(self, suffixes: Iterable[str]) -> Listing:
        dropped = set(self.having(suffixes))
        kept = {file: facts for file, facts in self.files.items() if file not in dropped}
        return Listing(self.root, kept, self.left_out, self.unknown)

    def told(self) -> str:
        """What was left out, in brackets for an error message where nothing else is there; "" for nothing."""
        others = {f"files {suffix}: {NO_READER}": count for suffix, count in self.unknown.most_common(_TOLD)}
        return told({**self.left_out, **others})

    def digest(self) -> str:
        """Of names, sizes and times of change: 128 bits in hex."""
        return digest(self.files)


def digest(files: Mapping[str, str]) -> str:
    """128 bits (hex) of files, by name, and what is known of them."""
    lines = "".join(f"{file}\0{facts}\n" for file, facts in files.items())
    return hashlib.blake2b(lines.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def told(left_out: Mapping[str, int]) -> str:
    """{why: how many} in brackets for an error message; "" for nothing."""
    parts = "; ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    return f" (left out: {parts})" if parts else ""


def files_at(path: Path, listing: Listing, suffix: str, *, what: str) -> list[str]:
    """The one file at `path`, or those of a kind in its listing. UserError where there are none."""
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise UserError(f"there is no {path}. Give {what}: source.path=...")
    if found := listing.having({suffix}):
        return [str(path / file) for file in found]
    raise UserError(f"{path} holds no {suffix} file{listing.told()}. Give the folder that does: source.path=...")


def listing_at(path: Path) -> Listing:
    """Of a folder; an empty one of a file, or of nothing."""
    return list_files(path) if path.is_dir() else Listing(path, {})


def list_files(root: Path) -> Listing:
    """UserError when `root` cannot be listed."""
    left_out: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    try:
        found = dict(_walk(root, left_out, unknown))
    except OSError as error:
        raise UserError(f"the folder {root} cannot be listed ({error}).") from error
    return Listing(root, {file: found[file] for file in sorted(found)}, left_out, unknown)


def _walk(root: Path, left_out: Counter[str], unknown: Counter[str]) -> Iterator[tuple[str, str]]:
    """Real folders go before linked ones, so that a folder inside the collection is read under its own name."""
    wanted = READ | picture_suffixes()
    seen: set[tuple[int, int]] = set()
    above = folders_above(root)
    real, linked = [(str(root), "")], []
    while real or linked:
        folder, prefix = real.pop() if real else linked.pop(0)
        for entry in _entries(folder, seen, left_out, may_fail=bool(prefix)):
            name = entry.name
            if name.startswith(".") or name in _NOT_FOLDERS_OF_PICTURES:
                continue
            dot = name.rfind(".")
            suffix = name[dot:].lower() if dot > 0 else ""
            if _is_folder(entry):
                if entry.is_symlink() and _place(entry) in above:
                    left_out["links to folders above the collection"] += 1
                elif suffix in _FOLDERS_OF_DATA:
                    left_out[f"folders {suffix}: {why_unread(suffix)}"] += 1
                else:
                    (linked if entry.is_symlink() else real).append((entry.path, f"{prefix}{name}/"))
            elif not suffix and not prefix.endswith(_NAMED_BY_LINKS):
                if (facts := _facts(entry, left_out)) and _is_picture(entry.path, left_out):
                    yield prefix + name, facts
            elif suffix not in wanted and not entry.is_symlink():
                if reason := "" if name.lower() in _THUMBNAILS else why_unread(suffix):
                    left_out[f"files {suffix}: {reason}"] += 1
                else:
                    unknown[suffix] += 1
            elif name.endswith(_MASKS):
                left_out["masks of OneTrainer"] += 1
            elif (facts := _facts(entry, left_out)) and suffix in wanted:
                yield prefix + name, facts


def _entries(
    folder: str, seen: set[tuple[int, int]], left_out: Counter[str], *, may_fail: bool
) -> list[os.DirEntry[str]]:
    """What lies in `folder`, nothing when that was read before."""
    try:
        found = Path(folder).stat()
        if (found.st_dev, found.st_ino) in seen:
            left_out["linked folders that were read already"] += 1
            return []
        seen.add((found.st_dev, found.st_ino))
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        if not may_fail:
            raise
        left_out["folders that cannot be opened"] += 1
        return []


def folders_above(root: Path) -> set[tuple[int, int]]:
    """The folders that hold the collection: a link to one of them leads round, by way of everything else in it."""
    return {(facts.st_dev, facts.st_ino) for facts in map(os.stat, root.resolve().parents)}


def _place(entry: os.DirEntry[str]) -> tuple[int, int]:
    facts = entry.stat()
    return facts.st_dev, facts.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _facts(entry: os.DirEntry[str], left_out: Counter[str]) -> str | None:
    try:
        found = entry.stat()
    except OSError:
        left_out["links that lead nowhere"] += 1
        return None
    if not stat.S_ISREG(found.st_mode):
        left_out["pipes and devices"] += 1
        return None
    return f"{found.st_size} {found.st_mtime_ns}"


def _is_picture(path: str, left_out: Counter[str]) -> bool:
    """By its first bytes. An archive, a video and the like are counted."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    if looks_like_picture(head):
        return True
    if kind := other_kind(head):
        left_out[f"files without a suffix: {kind}"] += 1
    return False


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """{first: [second, ...]} of pairs."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups


# ---------------------------------------------------------------------- whether a collection is as it was


def fingerprint(path: Path) -> str:
    """128 bits (hex) of the names, sizes and times of the files at and below `path`, links followed; none is read.
    OSError where nothing is there."""
    lines = sorted(_lines(path))
    return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def changed_since(path: Path, moment_ns: int) -> bool:
    """Whether a file or folder at or below `path` is younger than `moment_ns`."""
    newest = max(status.st_mtime_ns for _, status in _walk_all(path))
    return newest > moment_ns


def _lines(path: Path) -> Iterator[str]:
    start = len(str(path))
    for name, status in _walk_all(path):
        yield f"{name[start:]}\0{status.st_size}\0{status.st_mtime_ns}"


def _walk_all(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """(path, what stat says) of each file and folder; a folder that lies within itself by a link comes once,
    and those that hold `path` not at all."""
    status = path.stat()
    yield str(path), status
    waiting = [str(path)] if path.is_dir() else []
    seen = {(status.st_dev, status.st_ino), *folders_above(path)}
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                try:
                    status = entry.stat()
                except OSError:  # a link to nothing, or to itself
                    status = entry.stat(follow_symlinks=False)
                yield entry.path, status
                if stat.S_ISDIR(status.st_mode) and (place := (status.st_dev, status.st_ino)) not in seen:
                    seen.add(place)
                    waiting.append(entry.path)


# ---------------------------------------------------------------------- what suffixes say

HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp"}
_OTHERS = {".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".ppm", ".pgm", ".pbm", ".pnm"}
PICTURE_SUFFIXES = frozenset(_JPEG | _OTHERS)
TEXT_SUFFIXES = frozenset({".txt", ".caption", ".captions", ".text", ".cap", ".prompt", ".description"})
SIDECAR_SUFFIXES = frozenset({".tags", ".cls", ".xmp"})
JSON_SUFFIXES = frozenset({".json", ".jsonld"})
LINES_SUFFIXES = frozenset({".jsonl", ".ndjson", ".jsonlines"})  # an object a line
TABLE_SUFFIXES = JSON_SUFFIXES | LINES_SUFFIXES | {".csv", ".tsv", ".parquet", ".token", ".xml"}
TAR_SUFFIX = ".tar"

READ = PICTURE_SUFFIXES | TEXT_SUFFIXES | SIDECAR_SUFFIXES | TABLE_SUFFIXES | {TAR_SUFFIX}
NO_READER = "no reader; write parquet or WebDataset"
_NOT_READ = {  # why, of which suffixes
    HEIC_EXTRA: " ".join(HEIC_SUFFIXES),
    "an archive; unpack it": ".zip .cbz .rar .7z .tgz .gz .bz2 .xz .zst .zstd",
    "a spreadsheet; save it as csv": ".xlsx .xls .ods",
    NO_READER: ".feather .tfrecord .h5 .hdf5 .lmdb .mdb .msgpack .beton .ffcv .rec .mds .zarr",
    "no reader; pandas.read_orc and the like, and .to_parquet(FILE), make parquet of them": ".avro .orc",
    "a data base; export its table as csv, with a column that names the pictures": ".sqlite .sqlite3 .duckdb .db",
    "no reader; lance.dataset(FOLDER).to_table() and pyarrow.parquet.write_table(..., FILE) make parquet": ".lance",
    "no captions are read from these; write .txt, or a csv with the columns file_name and caption": (
        ".docx .doc .odt .rtf .yaml .yml .html .htm"
    ),
    "no reader; datasets.load_from_disk(FOLDER) and .to_parquet(FILE) for each split make parquet of them": ".arrow",
    PICKLE: ".pkl .pickle .pt .pth",
    "pointers of DVC, not the files themselves; `dvc pull` in their repository brings these": ".dvc",
    "parquet by another suffix; rename them to .parquet": ".pq .parq",
    "a download that did not end": ".part .incomplete .crdownload .aria2",
    "no reader for this format": (
        ".jxl .jp2 .j2k .jpf .psd .svg .eps .ai .xcf .tga .ico .exr .hdr .pcx .raw .dng .cr2 .cr3 .nef .arw .orf .rw2 "
        ".raf .icns .dds .pdf .djvu .mp4 .mov .webm"
    ),
}
_WHY_UNREAD = {suffix: why for why, suffixes in _NOT_READ.items() for suffix in suffixes.split()}
_PART_OF_TABLE = re.compile(r"(\.(?:csv|tsv|jsonl))\d{1,4}")  # Unsplash's photos.tsv000
_PLAIN_SUFFIX = re.compile(r"\.[a-z0-9]+(?=[^a-z0-9])")


def picture_suffixes() -> frozenset[str]:
    """Suffixes of what can be read here; HEIC is among them where `pillow-heif` is installed."""
    return PICTURE_SUFFIXES | HEIC_SUFFIXES if can_read_heic() else PICTURE_SUFFIXES


def suffix_of(file: str) -> str:
    """The last suffix of a path, in lower case; "" without one."""
    base = file[file.rfind("/") + 1 :]
    dot = base.rfind(".")
    return base[dot:].lower() if dot > 0 else ""


def stem_of(file: str) -> str:
    """A path without its last suffix."""
    suffix = suffix_of(file)
    return file[: -len(suffix)] if suffix else file


def why_unread(suffix: str) -> str | None:
    """Why files that look like pictures, tables or collections are not read; None for others."""
    if table := _PART_OF_TABLE.fullmatch(suffix):
        return f"a table by another suffix; rename it to {table[1]}"
    if plain := _PLAIN_SUFFIX.match(suffix):  # `.tfrecord-00000-of-00001`, `.jpg_large`
        suffix = plain[0]
        if suffix in PICTURE_SUFFIXES:
            return f"no suffix of pictures; rename them to {suffix}"
    return _WHY_UNREAD.get(suffix)
