"""Aspect-ratio buckets: sizes of about one area, of which a picture gets the one that crops it least.

Paper: Podell et al. 2023 (SDXL), section 2.3, https://arxiv.org/abs/2307.01952
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from diffusion_art.errors import UserError

Size: TypeAlias = tuple[int, int]  # width, height, px

_NAME = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})", re.ASCII)

MIN_AREA = 0.75  # of the square's; smaller sizes are no bucket
LEAST_APART = 0.05  # between the logarithms of two buckets' ratios: a picture between them loses half of that at most


def bucket_sizes(image_size_px: int, *, step_px: int, max_ratio: float = 3.0) -> tuple[Size, ...]:
    """The buckets beside the square of `image_size_px`, from tall to wide.

    Sides are multiples of `step_px`, the longer at most `max_ratio` times the shorter, areas between MIN_AREA and all
    of the square's; of sizes whose ratios are nearly one the largest is kept. With each comes the one that lies down.

    Raises:
        UserError: the square is no multiple of `step_px`.
    """
    if image_size_px % step_px:
        raise UserError(
            f"image_size_px={image_size_px} is no multiple of bucket_step_px={step_px}, so no bucket is the square: "
            "choose a step that divides it, such as 8 or 16."
        )
    area = image_size_px**2
    wide = [
        (width, height)
        for width in range(image_size_px, int(image_size_px * math.sqrt(max_ratio)) + 1, step_px)
        for height in range(step_px, width + 1, step_px)
        if MIN_AREA * area <= width * height <= area and width <= max_ratio * height
    ]
    chosen: list[Size] = []
    for size in sorted(wide, key=lambda size: (-size[0] * size[1], size)):
        if all(abs(log_ratio(size) - log_ratio(other)) >= LEAST_APART for other in chosen):
            chosen.append(size)
    both = {size for width, height in chosen for size in ((width, height), (height, width))}
    return tuple(sorted(both, key=log_ratio))


def cropped(width: int, height: int, size: Size) -> float:
    """The share of its pixels that a picture loses when it is cropped to the ratio of `size`."""
    ratio = width * size[1] / (height * size[0])
    return 1 - min(ratio, 1 / ratio)


def nearest(width: int, height: int, sizes: Sequence[Size]) -> Size:
    """The size that crops a picture least; of equal ones the first."""
    return min(sizes, key=lambda size: cropped(width, height, size))


def named(size: Size) -> str:
    """As people write it: `160x96`, width first."""
    return f"{size[0]}x{size[1]}"


def size_named(name: str) -> Size:
    """The size of that name. ValueError for a text that is none."""
    if (found := _NAME.fullmatch(name)) is None:
        raise ValueError(f"{name!r} is no size")
    return int(found[1]), int(found[2])


def scaled_to(size: Size, *, stored_px: int, asked_px: int) -> Size:
    """A bucket of squares of `stored_px`, as much larger or smaller as squares of `asked_px` are."""
    return size[0] * asked_px // stored_px, size[1] * asked_px // stored_px


def refuse_fractions(buckets: Mapping[str, Mapping[str, int]], *, stored_px: int, asked_px: int) -> None:
    """UserError where a bucket's sides, so scaled, are no whole numbers of pixels."""
    for name in {name for counts in buckets.values() for name in counts}:
        width, height = size_named(name)
        if width * asked_px % stored_px or height * asked_px % stored_px:
            raise UserError(
                f"pictures of {stored_px} px in buckets cannot be shown at {asked_px} px: {name} would have sides of "
                f"{width * asked_px / stored_px:g} and {height * asked_px / stored_px:g} px. Take "
                f"data.image_size_px={stored_px} and curriculum=none, or shrink by what divides bucket_step_px."
            )


def log_ratio(size: Size) -> float:
    """0 for a square, below for what stands, above for what lies."""
    return math.log(size[0] / size[1])
