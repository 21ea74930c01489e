"""Sizes that clients ask for and the model does not paint: its picture, enlarged.

By a whole factor each pixel becomes a square; otherwise the picture is resampled (Lanczos). Where the sides asked for
differ, the picture stands whole in the middle of white paper, as `fit=letterbox` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffusion_art.serving.api.errors import ApiError, shown
from diffusion_art.serving.limits import Limits
from diffusion_art.sheets import PAPER

LEAST_PX = 16


@dataclass(frozen=True)
class Size:
    """Pixels of an answer's picture, of which `painted_px` a side are the model's own."""

    width: int
    height: int
    painted_px: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def enlarged(self) -> bool:
        return (self.width, self.height) != (self.painted_px, self.painted_px)

    @property
    def whole(self) -> bool:
        """Whether the picture is enlarged by a whole factor."""
        return min(self.width, self.height) % self.painted_px == 0

    def story(self) -> dict[str, str]:
        """What the picture's file says of it, in AUTOMATIC1111's words."""
        if not self.enlarged:
            return {}
        return {"Hires resize": str(self), "Hires upscaler": "Nearest" if self.whole else "Lanczos"}

    def fill(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The picture in this size."""
        if not self.enlarged:
            return pixels
        side = min(self.width, self.height)
        filter = Image.Resampling.NEAREST if self.whole else Image.Resampling.LANCZOS
        picture = Image.fromarray(pixels).resize((side, side), filter)
        if self.width == self.height:
            return np.asarray(picture)
        sheet = Image.new("RGB", (self.width, self.height), PAPER)
        sheet.paste(picture, ((self.width - side) // 2, (self.height - side) // 2))
        return np.asarray(sheet)


def size_of(asked: str | None, *, painted_px: int, pictures: int, limits: Limits) -> Size:
    """The size of an answer's pictures: the one asked for, or the model's own.

    Raises:
        ApiError: 400 for what is no size, is too small or large, or, with `limits.sizes=exact`, is another.
    """
    own = Size(painted_px, painted_px, painted_px)
    if asked in (None, "", "auto", str(own)):
        return own
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", asked or "", flags=re.ASCII)
    if limits.sizes == "exact" or found is None:
        raise _refusal(f"This model paints {own}, not {shown(asked) or 'that'}: say '{own}' or 'auto'.")
    size, most = Size(int(found[1]), int(found[2]), painted_px), limits.max_size_px
    if not LEAST_PX <= min(size.width, size.height) <= max(size.width, size.height) <= most:
        raise _refusal(f"A side may have {LEAST_PX} to {most} pixels here, which {size} does not fit.")
    if pictures * size.width * size.height > limits.max_pixels:
        raise _refusal(
            f"{pictures} pictures of {size} are more than the {limits.max_pixels:,} pixels of an answer: "
            "ask for fewer or smaller ones."
        )
    return size


def _refusal(message: str) -> ApiError:
    return ApiError(400, message, param="size", code="invalid_size")
