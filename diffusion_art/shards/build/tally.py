"""The counts of a build, and the lines that report them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from diffusion_art.captions.captioner import CAPTIONS, READY, clean, distinct, nameable
from diffusion_art.errors import UserError
from diffusion_art.shards.build.encode import Encoded, split_of
from diffusion_art.shards.manifest import Manifest
from diffusion_art.sources.base import BadPicture, LeftOut, Note
from diffusion_art.sources.embedded import EMBEDDED
from diffusion_art.sources.paths.names import STEM, words_of_name
from diffusion_art.units import counted, counted_with

BAD_PICTURES_FILE = "bad_pictures.txt"
FOLDER = "folder"  # the column of a folder's name, the last that a caption is made of
NAMED_SPLITS = "named"  # the manifest's `splits` where the source names its validation split

_CAPTION_WITHIN = 1000  # pictures, one of which must have a caption
_WORDS = re.compile(r"[^\W\d_]{2,} (?:.* )?[^\W\d_]{2,}")  # a name of two words or more may be a caption
_REASONS = 50  # of each kind that a manifest keeps
_NO_TEXT = {"width", "height", "file_name", "filename", "file", "url", "key", "id", "image_id", "repeats"}
_NO_TEXT |= {FOLDER, "caption", CAPTIONS, READY, "__key__", "__url__", "sha256", "md5", "exif", "status"}


class NoCaptions(UserError):
    """None of a build's pictures has a caption. `found` says what there is, `way` what gives them captions, and
    `template` is the one that would, where there is one.
    """

    def __init__(self, found: str, way: str, template: str | None) -> None:
        super().__init__(
            f"{found}. {way}, or build all the same with allow_no_captions=true (data.build.allow_no_captions of a "
            "training)."
        )
        self.found, self.way, self.template = found, way, template


@dataclass
class Tally:
    """The pictures of a build so far. `limit` None has no end."""

    max_bad: int
    limit: int | None
    allow_no_captions: bool = False
    listed: Callable[[], Mapping[str, int]] = dict  # what the source's listing left out
    # the files of how many, of its first pictures, hold captions, and how many those first ones are
    within: Callable[[], tuple[int, int]] = lambda: (0, 0)
    seen: dict[int, int] = field(default_factory=dict)  # key as a number: CRC-32 of its captions
    named_val: set[int] = field(default_factory=set)  # keys that the source names as validation pictures
    crossed: set[int] = field(default_factory=set)  # those of them that it names otherwise too
    more: dict[int, list[str]] = field(default_factory=dict)  # captions that came with another copy of a picture
    without_caption: set[int] = field(default_factory=set)
    several_captions: set[int] = field(default_factory=set)
    folder_as_caption: int = 0
    bad: list[BadPicture] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)  # letters in each, as long as no picture had a caption
    duplicates: int = 0
    worded: int = 0  # pictures whose file has a name of several words, as long as no picture had a caption

    def note_bad(self, picture: BadPicture) -> None:
        """Count a bad picture. UserError when it is one too many."""
        self.bad.append(picture)
        if len(self.bad) > self.max_bad:
            shown = "; ".join(f"{bad.name}: {bad.reason}" for bad in self.bad[:3])
            raise UserError(
                f"{len(self.bad)} bad pictures, and max_bad={self.max_bad} allows no more ({shown}; all in "
                f"{BAD_PICTURES_FILE}). Repair the source, or raise max_bad (data.build.max_bad of a training)."
            )

    def note_left_out(self, picture: LeftOut) -> None:
        """Count what is left out, or a note on what is kept, by its reason."""
        (self.notes if isinstance(picture, Note) else self.left_out)[picture.reason] += 1

    def note_good(self, picture: Encoded) -> bool:
        """Whether this is a new picture, and so to be kept. UserError where no picture of many has a caption."""
        number, captions = int(picture.key, 16), picture.captions
        checksum = crc32("\0".join(captions).encode("utf-8", "replace"))
        known = self.seen.get(number)
        if known is not None:
            self._note_copy(number, picture, new=captions if checksum != known else ())
            return False
        if self.full:
            return False
        self.seen[number] = checksum
        if picture.split == "val":
            self.named_val.add(number)
        self._note_captions(number, picture)
        if len(self.seen) == _CAPTION_WITHIN:
            self.check_captions()
        return True

    def _note_copy(self, number: int, picture: Encoded, *, new: tuple[str, ...]) -> None:
        """Another copy of a picture that there is, with captions that may be new."""
        self.duplicates += 1
        if (picture.split == "val") != (number in self.named_val):
            self.crossed.add(number)
            self.named_val.add(number)
        if new:
            self.more.setdefault(number, []).extend(new)

    def _note_captions(self, number: int, picture: Encoded) -> None:
        if not picture.captions:
            self.without_caption.add(number)
        elif len(picture.captions) > 1:
            self.several_captions.add(number)
        elif picture.captions == (clean(picture.metadata.get(FOLDER)),):
            self.folder_as_caption += 1
        if len(self.without_caption) == len(self.seen) <= _CAPTION_WITHIN:
            self.columns.update({name: _letters(value) for name, value in picture.metadata.items()})
            self.worded += bool(_WORDS.search(words_of_name(picture.metadata)))
        elif not picture.metadata.keys() <= self.columns.keys():
            self.columns.update(dict.fromkeys(picture.metadata.keys() - self.columns.keys(), 1))

    def merged(self, picture: Encoded) -> Encoded:
        """The picture with the captions of all its copies."""
        number = int(picture.key, 16)
        texts = distinct([*picture.captions, *self.more.get(number, ())])
        if number not in self.more or not texts:
            return picture
        self.without_caption.discard(number)
        if len(texts) > 1:
            self.several_captions.add(number)
        return picture.with_captions(texts)

    def check_captions(self) -> None:
        """NoCaptions where no picture has one, unless that is allowed."""
        if self.allow_no_captions or self.more or not self.seen or len(self.without_caption) < len(self.seen):
            return
        first = "the first " if len(self.seen) == _CAPTION_WITHIN else ""
        names = ", ".join(name for name in self.columns if name not in ("width", "height")) or "none"
        left_out = "; ".join(f"{count} {reason}" for reason, count in self.listed().items() if count)
        found = f"none of {first}{len(self.seen):,} pictures has a caption; their columns: {names}"
        raise NoCaptions(f"{found}. Left out: {left_out}" if left_out else found, *self._way_to_captions())

    def _way_to_captions(self) -> tuple[str, str | None]:
        """A sentence, and the template in it."""
        filled = [name for name, letters in self.columns.most_common() if letters]
        inside, looked_at = self.within()
        if inside:
            return _by_template(EMBEDDED, f"The files of {inside} of the first {looked_at} hold captions themselves: ")
        texts = [name for name in filled if nameable(name) and name not in _NO_TEXT]
        if texts:
            return _by_template(texts[0])
        if 2 * self.worded > len(self.seen):
            return _by_template(STEM, "The names of the files are words: ")
        if "file_name" in self.columns:
            return "Put a NAME.txt beside each NAME.jpg, or a metadata.csv that has a caption column", None
        return "Give parquet files a column `caption`, or each NAME.jpg in a tar a NAME.txt", None

    def split(self, picture: Encoded, *, val_fraction: float) -> str:
        """Where a picture goes: by its source's word where that names a validation split, else by its key's hash."""
        if self.named_val:
            return "val" if int(picture.key, 16) in self.named_val else "train"
        return split_of(picture.key, val_fraction=val_fraction)

    @property
    def needs_another_pass(self) -> bool:
        """Whether pictures that were written before all were seen are in the wrong split, or lack captions."""
        return bool(self.named_val or self.more)

    @property
    def full(self) -> bool:
        return self.limit is not None and len(self.seen) >= self.limit

    @property
    def too_many_bad(self) -> bool:
        return len(self.bad) > self.max_bad

    def counts(self, left_out: Mapping[str, int]) -> dict[str, Any]:
        """For the manifest; `left_out` is what the source's listing left out."""
        return {
            "bad": len(self.bad),
            "bad_by_reason": _most_common(Counter(map(_kind_of, self.bad))),
            "duplicates": self.duplicates,
            "in_both_splits": len(self.crossed),
            "left_out": _most_common(Counter(left_out) + self.left_out),
            "notes": _most_common(self.notes),
            "several_captions": len(self.several_captions),
            "without_caption": len(self.without_caption),
            **({"folder_as_caption": self.folder_as_caption} if self.folder_as_caption else {}),
        }

    def column_names(self) -> list[str]:
        """What a caption template may name, for the manifest."""
        return sorted(self.columns.keys() - {CAPTIONS, READY})

    def bad_pictures(self) -> str:
        """One line a bad picture: its name, a tab, the reason."""
        return "".join(f"{' '.join(bad.name.split())}\t{' '.join(bad.reason.split())}\n" for bad in self.bad)


def summary(out: Path, manifest: Manifest, seconds: float) -> str:
    """What came of a build that took so long."""
    pictures = sum(manifest.splits.values())
    splits = ", ".join(f"{count} {split}" for split, count in manifest.splits.items())
    size_mb = sum(shard.bytes for shards in manifest.shards.values() for shard in shards) / 1e6
    lines = [
        f"{out}: {counted(pictures)} of {manifest.image_size_px} px ({splits}), {size_mb:.1f} MB, "
        f"in {seconds:.1f} s ({pictures / max(seconds, 1e-9):.0f} pictures/s)"
    ]
    if "val" not in manifest.splits:
        lines.append("no picture fell into the validation split; a larger val_fraction gives it some")
    return "\n  ".join([*lines, *told(manifest)])


def told(manifest: Manifest) -> list[str]:
    """A line for each thing that its build counted, for people; other builders may count nothing."""
    counts, named = manifest.noted("counts"), manifest.extra.get("splits") == NAMED_SPLITS
    crossed, several, by_folder = map(counts.get, ("in_both_splits", "several_captions", "folder_as_caption"))
    empty, copies, bad = map(counts.get, ("without_caption", "duplicates", "bad"))
    reasons = _table(counts, "bad_by_reason") if bad else []
    lines = (
        named and "the validation split is the one that the source names; val_fraction is not used",
        named
        and crossed
        and f"{counted(crossed)} that the source names in both splits {'is' if crossed == 1 else 'are'} in val only",
        several and f"{counted_with(several, 'has', 'have')} several captions; one is drawn at each visit",
        empty and f"{empty} of {sum(manifest.splits.values())} pictures have no caption",
        by_folder
        and f"{counted_with(by_folder, 'has its', 'have their')} folder's name as caption{_other_columns(manifest)}",
        *(f"{count} {note}" for note, count in _table(counts, "notes")),
        copies and f"{counted(copies, 'duplicate')} dropped",
        *(f"{count} {reason}, left out" for reason, count in _table(counts, "left_out")),
        bad and f"{bad} bad pictures skipped, named in {BAD_PICTURES_FILE}",
        *(f"  {count} {reason}" for reason, count in reasons),
    )
    return [str(line) for line in lines if line]


def _by_template(column: str, why: str = "") -> tuple[str, str]:
    template = f"{{{column}}}"
    use = "use" if why else "Use"
    return f"{why}{use} caption_template='{template}' (data.caption_template of a training)", template


def _letters(value: Any) -> int:
    """How many a column has that a caption could be made of: none in a number or an address."""
    text = str(value)
    return 0 if text.isdigit() or text.startswith(("http://", "https://")) else len(text)


def _other_columns(manifest: Manifest) -> str:
    """What else a template may take, where the captions are names of folders."""
    columns = manifest.extra.get("columns")
    others = [name for name in columns if name not in _NO_TEXT] if isinstance(columns, list) else []
    return f"; other columns, for a caption_template: {', '.join(others)}" if others else ""


def _table(counts: Mapping[str, Any], name: str) -> list[tuple[str, int]]:
    found = counts.get(name)
    return sorted(found.items(), key=lambda item: (-item[1], item[0])) if isinstance(found, dict) else []


def _kind_of(bad: BadPicture) -> str:
    """The reason without what differs from picture to picture."""
    return re.sub(r"0x[0-9a-f]+|\d+", "N", " ".join(bad.reason.split()))[:200]


def _most_common(counter: Counter[str]) -> dict[str, int]:
    kept = dict(counter.most_common(_REASONS))
    rest = counter.total() - sum(kept.values())
    return kept | ({"for other reasons": rest} if rest else {})
