"""One shard folder under the glass: each shard's bytes and samples, and what only shows over all of them. What is found
wrong, there or in tars, is counted by rule, with the first few of each named.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_art.errors import UserError
from diffusion_art.shards.build.encode import split_of
from diffusion_art.shards.build.tally import BAD_PICTURES_FILE, NAMED_SPLITS
from diffusion_art.shards.manifest import MANIFEST_FILE, sha256_of
from diffusion_art.shards.pixels import BadPicture, decode
from diffusion_art.shards.reader import ShardInfo, ShardSet
from diffusion_art.shards.side_files import SIDE_FOLDER
from diffusion_art.shards.tables import index_shard
from diffusion_art.sizes import named

# Rule -> what it means, and whether training on the data would be wrong (an error) or only less good.
RULES: dict[str, tuple[str, bool]] = {
    "folder": ("cannot be opened", True),
    "checksum": ("the file is not the one its manifest describes", True),
    "layout": ("no whole tar, or not what the index says", True),
    "key": ("several samples with one key", True),
    "split": ("in another split than the hash of its key says", True),
    "leak": ("a validation picture that is also trained on", True),
    "picture": ("no picture that can be decoded", True),
    "size": ("a picture of another size than the manifest says", True),
    "text": ("a caption that is no UTF-8", True),
    "captions": ("other captions to draw from than the metadata has", True),
    "metadata": ("metadata that is no JSON object", True),
    "code": ("a member that other readers would run as code", True),
    "path": ("a member whose name leads out of the folder, or into a shell", True),
    "link": ("a link or device among the members", True),
    "stray": ("a file that belongs to no split", False),
    "twin": ("the same picture under several keys", False),
    "caption": ("an empty caption", False),
}
NAMED = 20  # of each rule


@dataclass
class Findings:
    """Faults by rule: how many (`counts`), and the first of them as (where, what) (`named`)."""

    counts: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, rule: str, where: str, what: str, *, count: int = 1) -> None:
        """Count a fault; KeyError for a rule that there is not."""
        RULES[rule]
        self.counts[rule] += count
        named = self.named.setdefault(rule, [])
        if len(named) < NAMED:
            named.append((where, what))

    def merge(self, other: Findings) -> None:
        """Add those of another look."""
        self.counts.update(other.counts)
        for rule, theirs in other.named.items():
            mine = self.named.setdefault(rule, [])
            mine += theirs[: NAMED - len(mine)]

    @property
    def errors(self) -> int:
        return sum(count for rule, count in self.counts.items() if RULES[rule][1])

    @property
    def warnings(self) -> int:
        return sum(self.counts.values()) - self.errors

    def plain(self) -> dict[str, Any]:
        """As JSON: rule -> its meaning, level, count and the first of them."""
        return {
            rule: {
                "meaning": meaning,
                "level": "error" if error else "warning",
                "count": self.counts[rule],
                "first": [{"where": where, "what": what} for where, what in self.named[rule]],
            }
            for rule, (meaning, error) in RULES.items()
            if self.counts[rule]
        }


_AT_ONCE = 256  # samples whose views are held


def lint_shard(shards: ShardSet, split: str, number: int, findings: Findings, *, pictures: bool) -> np.ndarray | None:
    """Add what is wrong with shard `number` of `split` to `findings`.

    Returns a 64-bit hash (uint64) of each picture's bytes, or None for a shard that cannot be read.
    """
    infos = shards.manifest.shards[split]
    info, first = infos[number], sum(earlier.samples for earlier in infos[:number])
    _lint_checksum(shards.folder, info, findings)
    where = f"{shards.folder.name}/{info.file}"
    try:
        rows = index_shard(shards.folder / info.file, shard=number)
    except (UserError, OSError) as error:
        findings.add("layout", where, str(error))
        return None
    if not np.array_equal(rows, shards.rows(split)[first : first + info.samples]):
        findings.add("layout", where, f"holds {len(rows)} samples, which are not what its index says")
        return None
    hashes = np.empty(info.samples, np.uint64)
    for start in range(0, info.samples, _AT_ONCE):
        stop = min(start + _AT_ONCE, info.samples)
        hashes[start:stop] = _lint_samples(
            shards, split, np.arange(first + start, first + stop), findings, pictures=pictures
        )
    return hashes


def lint_folder(shards: ShardSet, hashes: Mapping[str, np.ndarray], findings: Findings) -> None:
    """Add what shows over all shards: the indexes' checksums, stray files, keys that come twice, twins.

    `hashes` are those of `lint_shard`, per split; twins are found among the shards that could be read.
    """
    manifest, folder = shards.manifest, shards.folder
    tables = [info.table for info in manifest.buckets.values()]
    for info in (*manifest.indexes.values(), *manifest.captions.values(), *tables):
        _lint_checksum(folder, info, findings)
    known = {info.file for split in manifest.shards for info in manifest.files(split)}
    known |= {MANIFEST_FILE, BAD_PICTURES_FILE, SIDE_FOLDER}
    for path in sorted(folder.iterdir()):
        if path.name not in known:
            findings.add("stray", f"{folder.name}/{path.name}", "is not in the manifest")
    for key, count in _repeated([shards.keys(split) for split in shards.splits]):
        findings.add("key", f"{folder.name} {key:016x}", f"is the key of {count} samples")
    for split, found in hashes.items():
        for number, (twins, count) in enumerate(_repeated([found])):
            where = folder.name
            if number < NAMED and len(found) == shards.splits[split]:
                where = f"{folder.name} {shards.key(split, int(np.argmax(found == np.uint64(twins))))}"
            findings.add("twin", where, f"is one of {count} in {split} with the same bytes", count=count - 1)
    none = np.empty(0, np.uint64)
    shared = np.intersect1d(hashes.get("train", none), hashes.get("val", none))
    if len(shared):
        what = f"{len(shared)} pictures of val lie in train too, under other keys"
        findings.add("leak", folder.name, what, count=len(shared))


def _lint_checksum(folder: Path, info: ShardInfo, findings: Findings) -> None:
    where = f"{folder.name}/{info.file}"
    try:
        found = sha256_of(folder / info.file)
    except OSError as error:
        findings.add("checksum", where, str(error))
    else:
        if found != info.sha256:
            findings.add("checksum", where, f"has SHA-256 {found}, the manifest says {info.sha256}")


def _lint_samples(
    shards: ShardSet, split: str, numbers: np.ndarray, findings: Findings, *, pictures: bool
) -> list[int]:
    """Look at these samples; the hashes of their pictures' bytes."""
    fraction, sizes = _val_fraction(shards), _sizes(shards, split)
    keys, captions, images = shards.views(split, numbers)
    hashes = []
    for i, key, caption, image in zip(numbers.tolist(), keys.tolist(), captions, images, strict=True):
        where = f"{shards.folder.name} {key:016x}"
        hashes.append(int.from_bytes(hashlib.blake2b(image or b"", digest_size=8).digest(), "little"))
        if fraction is not None and (right := split_of(f"{key:016x}", val_fraction=fraction)) != split:
            findings.add("split", where, f"lies in {split}, the hash of its key says {right}")
        _lint_caption(caption, where, findings)
        _lint_metadata(shards, split, i, where, findings)
        if not shards.captions_agree(split, i):
            findings.add("captions", where, "has other captions in its metadata than in the table of captions")
        if pictures:
            _lint_picture(image, sizes, where, findings)
    return hashes


def _lint_caption(caption: memoryview | None, where: str, findings: Findings) -> None:
    try:
        if not str(caption or b"", "utf-8").strip():
            findings.add("caption", where, "has no caption")
    except UnicodeDecodeError as error:
        findings.add("text", where, str(error))


def _lint_metadata(shards: ShardSet, split: str, i: int, where: str, findings: Findings) -> None:
    try:
        shards.metadata(split, i)
    except (ValueError, RecursionError, OSError) as error:
        findings.add("metadata", where, str(error)[:200])


def _sizes(shards: ShardSet, split: str) -> Collection[str]:
    """Those that its pictures may have."""
    return shards.buckets.get(split) or {named((shards.image_size_px, shards.image_size_px))}


def _lint_picture(image: memoryview | None, sizes: Collection[str], where: str, findings: Findings) -> None:
    try:
        height, width, _ = decode(image or b"").shape
    except BadPicture as error:
        findings.add("picture", where, str(error)[:200])
    else:
        if named((width, height)) not in sizes:
            findings.add("size", where, f"is {width} x {height} px, the manifest says {', '.join(sizes)}")


def _repeated(columns: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """The values (uint64) that come more than once in all `columns` together, and how often."""
    ordered = np.sort(np.concatenate([np.empty(0, np.uint64), *columns]))
    values = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    counts = np.searchsorted(ordered, values, side="right") - np.searchsorted(ordered, values)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def _val_fraction(shards: ShardSet) -> float | None:
    """What the builder said that it split by, where it was `prepare` and its source named no validation split."""
    if shards.manifest.extra.get("splits") == NAMED_SPLITS:
        return None
    fraction = shards.manifest.noted("settings").get("val_fraction")
    return float(fraction) if isinstance(fraction, int | float) else None
