"""The size of an answer's picture.

Of the sizes that clients ask for the model paints some, and for others its picture of the nearest shape is enlarged.
By a whole factor each pixel becomes a square; otherwise the picture is resampled (Lanczos). Where it has not the shape
asked for, it stands whole in the middle of white paper, as `fit=letterbox` does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffusion_art.serving.api.errors import invalid, shown
from diffusion_art.serving.settings import Limits
from diffusion_art.sheets import PAPER
from diffusion_art.sizes import Size as Painted
from diffusion_art.sizes import named, nearest

LEAST_PX = 16


@dataclass(frozen=True)
class Size:
    """Pixels of an answer's picture, and of the one that the model paints for it (width, height)."""

    width: int
    height: int
    painted: Painted

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def enlarged(self) -> bool:
        return (self.width, self.height) != self.painted

    @property
    def whole(self) -> bool:
        """Whether the picture is enlarged by a whole factor."""
        return self._factor.denominator == 1

    @property
    def _factor(self) -> Fraction:
        """What the painted picture is enlarged by so that it still fits."""
        return min(Fraction(self.width, self.painted[0]), Fraction(self.height, self.painted[1]))

    def story(self) -> dict[str, str]:
        """What the picture's file says of it, in AUTOMATIC1111's words."""
        if not self.enlarged:
            return {}
        return {"Hires resize": str(self), "Hires upscaler": "Nearest" if self.whole else "Lanczos"}

    def fill(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The picture in this size."""
        if not self.enlarged:
            return pixels
        width, height = (max(1, round(side * self._factor)) for side in self.painted)
        filter = Image.Resampling.NEAREST if self.whole else Image.Resampling.LANCZOS
        picture = Image.fromarray(pixels).resize((width, height), filter)
        if (width, height) == (self.width, self.height):
            return np.asarray(picture)
        sheet = Image.new("RGB", (self.width, self.height), PAPER)
        sheet.paste(picture, ((self.width - width) // 2, (self.height - height) // 2))
        return np.asarray(sheet)


def size_of(
    asked: str | None, *, painted_px: int, pictures: int, limits: Limits, others: Sequence[Painted] = ()
) -> Size:
    """The size of an answer's pictures: the one asked for, or the model's square. `others` are painted too.

    Raises:
        ApiError: 400 for what is no size, is too small or large, or, with `limits.sizes=exact`, is another.
    """
    refusal, square = partial(invalid, param="size", code="invalid_size"), (painted_px, painted_px)
    own = {named(size): Size(*size, size) for size in (square, *others)}
    asked = asked and asked.lower()
    if asked in (None, "", "auto"):
        return own[named(square)]
    if asked in own:
        return own[asked]
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", asked or "", flags=re.ASCII)
    if limits.sizes == "any" and found is None:
        most = f"with sides of at most {limits.max_size_px} pixels"
        raise refusal(f"A size is 'WIDTHxHEIGHT' {most}, or 'auto', not {shown(asked) or 'that'}.")
    if limits.sizes == "exact" or found is None:
        paints = ", ".join(map(named, others)) if others else named(square)
        raise refusal(f"This model paints {paints}, not {shown(asked) or 'that'}: say '{named(square)}' or 'auto'.")
    width, height = int(found[1]), int(found[2])
    shape = nearest(width, height, others) if others and width and height else square
    size, most = Size(width, height, shape), limits.max_size_px
    if not LEAST_PX <= min(size.width, size.height) <= max(size.width, size.height) <= most:
        raise refusal(f"A side may have {LEAST_PX} to {most} pixels here, which {size} does not fit.")
    if pictures * size.width * size.height > limits.max_pixels:
        raise refusal(
            f"{pictures} pictures of {size} are more than the {limits.max_pixels:,} pixels of an answer: "
            "ask for fewer or smaller ones."
        )
    return size
