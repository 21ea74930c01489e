"""The description of a shard folder: what is in it, how large, with which checksums.

A shard folder holds, besides its `<split>-<number>.tar` files,

    manifest.json        this description; written last, so a folder that has one is whole
    index-<split>.npy    one row per sample: where in which shard it lies (tables.py)
    captions-<split>.bin only where samples have several captions: all of them (tables.py)
    buckets-<split>.npy  only where pictures keep their shape: the samples of each size (buckets.py)

A split of a folder with buckets can be read whole, as any other (`train`), or by bucket (`train/160x96`).

100 million samples are 10 thousand manifest entries and a 4.8 GB index, read only where asked.
"""

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_art.errors import UserError
from diffusion_art.sizes import Size, size_named

FORMAT = "diffusion-art-shards"
VERSION = 1
BUCKETED = 2  # the version of a folder with buckets: an earlier program would crop its pictures to squares
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class ShardInfo:
    """One file of a shard folder: its name, its samples, its size in bytes and its SHA-256 (hex)."""

    file: str
    samples: int
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, samples: int) -> "ShardInfo":
        """That of a file as it lies there."""
        return cls(path.name, samples, path.stat().st_size, sha256_of(path))


@dataclass(frozen=True)
class BucketInfo:
    """The table of a split's samples by bucket, and how many each has, by its name (`160x96`), from tall to wide."""

    table: ShardInfo
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Manifest:
    """What a shard folder holds: per split its shards and index, the table of its captions where some samples have
    several, and its buckets where pictures keep their shape. `extra` is the builder's own plain JSON.
    """

    name: str
    image_size_px: int
    caption_template: str | None
    builder_version: str
    shards: Mapping[str, tuple[ShardInfo, ...]]
    indexes: Mapping[str, ShardInfo]
    extra: Mapping[str, Any] = field(default_factory=dict)
    captions: Mapping[str, ShardInfo] = field(default_factory=dict)
    buckets: Mapping[str, BucketInfo] = field(default_factory=dict)

    def noted(self, name: str) -> dict[str, Any]:
        """What the builder noted by that name; {} where it did not, as other builders may."""
        found = self.extra.get(name)
        return found if isinstance(found, dict) else {}

    @cached_property
    def splits(self) -> dict[str, int]:
        """Samples per split."""
        return {split: sum(shard.samples for shard in shards) for split, shards in self.shards.items()}

    def files(self, split: str) -> tuple[ShardInfo, ...]:
        """All files of a split: its shards, its index, and its tables of captions and buckets."""
        captions = (self.captions[split],) if split in self.captions else ()
        buckets = (self.buckets[split].table,) if split in self.buckets else ()
        return (*self.shards[split], self.indexes[split], *captions, *buckets)

    @property
    def total_bytes(self) -> int:
        """Of all files of all splits."""
        return sum(info.bytes for split in self.shards for info in self.files(split))

    @cached_property
    def digest(self) -> str:
        """128 bits (hex) that name the samples and their order: same digest, same sample i in each split.

        Covers the bytes of the shards and nothing else, so that a renamed data set keeps its order.
        """
        content = {split: [[s.samples, s.sha256] for s in shards] for split, shards in self.shards.items()}
        canonical = json.dumps([VERSION, content], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]

    def to_json(self) -> str:
        """The text of `manifest.json`, the same for the same content."""
        splits = {
            split: {
                "samples": self.splits[split],
                "index": asdict(self.indexes[split]),
                "shards": [asdict(shard) for shard in shards],
            }
            | ({"captions": asdict(self.captions[split])} if split in self.captions else {})
            | ({"buckets": _plain_buckets(self.buckets[split])} if split in self.buckets else {})
            for split, shards in self.shards.items()
        }
        content = {
            "format": FORMAT,
            "version": BUCKETED if self.buckets else VERSION,
            "name": self.name,
            "image_size_px": self.image_size_px,
            "caption_template": self.caption_template,
            "builder_version": self.builder_version,
            "extra": dict(self.extra),
            "splits": splits,
        }
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read `folder/manifest.json`. UserError when there is none, or one that this version cannot read."""
        path = folder / MANIFEST_FILE
        remedy = f"build it with {rebuild(folder)}"
        if not folder.is_dir():
            raise UserError(f"there is no shard folder {folder}; {remedy}")
        if not path.is_file():
            raise UserError(
                f"{folder} has no {MANIFEST_FILE}: it is no shard folder, or its build did not finish; {remedy}"
            )
        return cls.parse(path.read_bytes(), path, remedy)

    @classmethod
    def parse(cls, text: bytes, path: Path | str, remedy: str) -> "Manifest":
        """What the `text` of the manifest at `path` says; `remedy` is what to do where it is none. UserError as from
        `load`.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not valid JSON ({error}); {remedy}") from None
        found = (content.get("format"), content.get("version")) if isinstance(content, dict) else (None, None)
        if found not in ((FORMAT, VERSION), (FORMAT, BUCKETED)):
            raise UserError(
                f"{path} has format {found[0]!r} version {found[1]!r}, this program reads {FORMAT!r} "
                f"version {VERSION} or {BUCKETED}; {remedy}"
            )
        try:
            return cls._of(content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{path} is incomplete or has a wrong entry ({error!r}); {remedy}") from None

    @classmethod
    def _of(cls, content: dict[str, Any]) -> "Manifest":
        splits = content["splits"]
        kinds = {"name": str, "image_size_px": int, "builder_version": str, "extra": dict, "splits": dict}
        if wrong := [name for name, kind in kinds.items() if not isinstance(content[name], kind)]:
            raise ValueError(f"{wrong[0]} is {str(content[wrong[0]])[:100]!r}")
        if not isinstance(content["caption_template"], str | None):
            raise ValueError(f"caption_template is {str(content['caption_template'])[:100]!r}")
        manifest = cls(
            name=content["name"],
            image_size_px=content["image_size_px"],
            caption_template=content["caption_template"],
            builder_version=content["builder_version"],
            shards={split: tuple(_info(s) for s in part["shards"]) for split, part in splits.items()},
            indexes={split: _info(part["index"]) for split, part in splits.items()},
            extra=content["extra"],
            captions={split: _info(part["captions"]) for split, part in splits.items() if "captions" in part},
            buckets={split: _buckets(part["buckets"]) for split, part in splits.items() if "buckets" in part},
        )
        for split, part in splits.items():
            counts = {part["samples"], manifest.splits[split], manifest.indexes[split].samples}
            counts |= {manifest.captions[split].samples} if split in manifest.captions else set()
            if split in manifest.buckets:
                counts |= {manifest.buckets[split].table.samples, sum(manifest.buckets[split].counts.values())}
            if len(counts) != 1:
                raise ValueError(f"sample counts of split {split!r} disagree: {sorted(counts)}")
        return manifest


def _plain_buckets(info: BucketInfo) -> dict[str, Any]:
    return {**asdict(info.table), "sizes": [[name, samples] for name, samples in info.counts.items()]}


def _buckets(entry: dict[str, Any]) -> BucketInfo:
    """The entry of a split's buckets; ValueError where a name is no size, or a count none."""
    table = {name: value for name, value in entry.items() if name != "sizes"}
    counts = dict(entry["sizes"])
    for name, samples in counts.items():
        size_named(name)
        if type(samples) is not int or samples < 1:
            raise ValueError(f"bucket {name} has {samples!r} samples")
    return BucketInfo(_info(table), counts)


def _info(entry: dict[str, Any]) -> ShardInfo:
    """A file entry, its name proved to be a plain name: a manifest may have come over a network."""
    info = ShardInfo(**entry)
    if info.file in {"", ".", ".."} or not {"/", "\\", "\0"}.isdisjoint(info.file):
        raise ValueError(f"{info.file!r} is not a plain file name")
    if not (isinstance(info.samples, int) and isinstance(info.bytes, int) and min(info.samples, info.bytes) >= 0):
        raise ValueError(f"samples and bytes of {info.file!r} must be counts")
    return info


# ---------------------------------------------------------------------- names of splits and buckets


def of_bucket(split: str, bucket: str) -> str:
    """The name by which a bucket of a split is read."""
    return f"{split}/{bucket}"


def split_of(name: str) -> tuple[str, str | None]:
    """The split, and the bucket if it is one's name."""
    split, _, bucket = name.partition("/")
    return split, bucket or None


def samples_in(name: str, splits: Mapping[str, int], buckets: Mapping[str, Mapping[str, int]]) -> int | None:
    """How many samples a split, or a bucket of one, has; None where that name is not known."""
    split, bucket = split_of(name)
    return splits.get(split) if bucket is None else buckets.get(split, {}).get(bucket)


class OneSize(NamedTuple):
    """A split whose pictures are squares, or a bucket of one: its name, its samples, and their size."""

    name: str
    samples: int
    size: Size


def one_sized(
    splits: Mapping[str, int], buckets: Mapping[str, Mapping[str, int]], *, image_size_px: int
) -> list[OneSize]:
    """All samples, in parts whose pictures have one size."""
    square = image_size_px, image_size_px
    squares = [OneSize(split, samples, square) for split, samples in splits.items() if split not in buckets]
    shaped = [
        OneSize(of_bucket(split, bucket), samples, size_named(bucket))
        for split, counts in buckets.items()
        for bucket, samples in counts.items()
    ]
    return squares + shaped


# ---------------------------------------------------------------------- files beside it


def has_manifest(folder: Path) -> bool:
    """Whether a folder has a manifest of shards, be it damaged or of a later version, and no `manifest.json` of IIIF or
    of a web page.
    """
    try:
        content = json.loads((folder / MANIFEST_FILE).read_bytes())
    except OSError:
        return False
    except (ValueError, RecursionError):
        return True
    return isinstance(content, dict) and not content.keys().isdisjoint(("format", "splits"))


def check_file(folder: Path, file: str, *, bytes: int) -> None:
    """`file` is a plain file of `bytes`, in `folder`; UserError when not: a folder may come from anywhere."""
    path = folder / file
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            path = path.resolve(strict=True)
            if not path.is_relative_to(folder.resolve()):
                raise UserError(
                    f"{folder / file} is a link to {path}, and files outside a shard folder are not read; if you "
                    f"made it, copy what it means: cp -rL {folder} NEW"
                )
            status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise mismatch(folder, file, "no file of that name", f"{bytes} bytes") from None
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, a name no file can have
        raise mismatch(folder, file, f"nothing that can be read ({error})", f"{bytes} bytes") from None
    if not stat.S_ISREG(status.st_mode):
        raise mismatch(folder, file, "no plain file", f"{bytes} bytes")
    if status.st_size != bytes:
        raise mismatch(folder, file, f"{status.st_size} bytes", f"{bytes} bytes")


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rebuild(folder: Path) -> str:
    """The command that builds `folder`, for error messages."""
    return f"`python -m diffusion_art.prepare source=NAME out={folder}`"


def mismatch(folder: Path, file: str, found: str, expected: str) -> UserError:
    """The error for a file that is not what the manifest beside it says."""
    return UserError(
        f"{folder / file} does not match its manifest.json: found {found}, the manifest says {expected}; "
        f"copy the folder again, or build it again with {rebuild(folder)}"
    )
