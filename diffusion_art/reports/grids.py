"""The sample grids of a run, and those of them that a page can carry."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image

from diffusion_art.reports.document import data_url

MOST = 24  # grids in a page
SIDE_PX = 1200  # of a grid in a page, at the most
QUALITY = 82


def grids_of(run: Path) -> dict[int, Path]:
    """The sample grids painted in training, by step."""
    files = (run / "samples").glob("step_*.png")
    found = {int(match[1]): file for file in files if (match := re.fullmatch(r"step_(\d{1,18})", file.stem))}
    return dict(sorted(found.items()))


def spread(steps: Sequence[int], most: int = MOST) -> list[int]:
    """Evenly spread ones of them, the first and the last included: every one, every second, every fourth, ...

    So what is shown of a longer list is, but for the last, also shown of a shorter one or lies behind it.
    """
    stride = 1
    while len(steps) > most and -(-len(steps) // stride) >= most:
        stride *= 2
    kept = list(steps[::stride])
    return kept if not steps or kept[-1] == steps[-1] else [*kept, steps[-1]]


def small(path: Path, *, side_px: int = SIDE_PX, quality: int = QUALITY) -> bytes:
    """A picture as WebP, no larger than `side_px`.

    Raises:
        OSError: it is no picture, or is not whole.
    """
    with Image.open(path) as picture:
        shown = picture.convert("RGB")
    shown.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    shown.save(encoded, format="WEBP", quality=quality, method=2)
    return encoded.getvalue()


class Film:
    """Some of a run's grids as data URLs, small; each is encoded once."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._encoded: dict[int, str] = {}

    def frames(self) -> dict[int, str]:
        """By step. A grid that cannot be read is left out."""
        grids = grids_of(self.run)
        shown = {}
        for step in spread(list(grids)):
            with suppress(OSError):
                shown[step] = self._encoded[step] if step in self._encoded else _embedded(grids[step])
        self._encoded = shown
        return shown


def _embedded(path: Path) -> str:
    content, original = small(path), path.read_bytes()
    if len(original) <= len(content):
        return data_url(original, "image/png")
    return data_url(content, "image/webp")
