"""What a build counts, and how it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from diffusion_art.data.encode import Encoded
from diffusion_art.errors import UserError
from diffusion_art.sources.base import BadPicture
from diffusion_art.streaming.manifest import Manifest

BAD_PICTURES_FILE = "bad_pictures.txt"


@dataclass
class Tally:
    """The pictures of a build so far. `limit` None has no end."""

    max_bad: int
    limit: int | None
    seen: set[int] = field(default_factory=set)  # keys as numbers
    bad: list[BadPicture] = field(default_factory=list)
    duplicates: int = 0
    without_caption: int = 0

    def note_bad(self, picture: BadPicture) -> None:
        """Count a bad picture. UserError when it is one too many."""
        self.bad.append(picture)
        if len(self.bad) > self.max_bad:
            shown = "; ".join(f"{bad.name}: {bad.reason}" for bad in self.bad[:3])
            raise UserError(
                f"{len(self.bad)} bad pictures, and max_bad={self.max_bad} allows no more ({shown}; all in "
                f"{BAD_PICTURES_FILE}). Mend the source, or raise max_bad."
            )

    def note_good(self, picture: Encoded) -> bool:
        """Whether this is a new picture, and so to be kept."""
        number = int(picture.key, 16)
        if number in self.seen:
            self.duplicates += 1
            return False
        self.seen.add(number)
        self.without_caption += not picture.caption
        return True

    @property
    def full(self) -> bool:
        return self.limit is not None and len(self.seen) >= self.limit

    @property
    def too_many_bad(self) -> bool:
        return len(self.bad) > self.max_bad

    def counts(self) -> dict[str, int]:
        """For the manifest."""
        return {
            "bad": len(self.bad),
            "duplicates": self.duplicates,
            "without_caption": self.without_caption,
        }

    def bad_pictures(self) -> str:
        """One line a bad picture: its name, a tab, the reason."""
        return "".join(f"{' '.join(bad.name.split())}\t{' '.join(bad.reason.split())}\n" for bad in self.bad)

    def summary(self, out: Path, manifest: Manifest, seconds: float) -> str:
        splits = ", ".join(f"{count} {split}" for split, count in manifest.splits.items())
        size_mb = sum(shard.bytes for shards in manifest.shards.values() for shard in shards) / 1e6
        lines = [
            f"{out}: {len(self.seen)} pictures of {manifest.image_size_px} px ({splits}), {size_mb:.1f} MB, "
            f"in {seconds:.1f} s ({len(self.seen) / max(seconds, 1e-9):.0f} pictures/s)"
        ]
        if self.duplicates:
            lines.append(f"  {self.duplicates} duplicates dropped")
        if self.bad:
            lines.append(f"  {len(self.bad)} bad pictures skipped, named in {out / BAD_PICTURES_FILE}")
        if self.without_caption:
            lines.append(f"  {self.without_caption} pictures have no caption")
        if "val" not in manifest.splits:
            lines.append("  no picture fell into the validation split; a larger val_fraction gives it some")
        return "\n".join(lines)
