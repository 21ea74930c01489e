"""Which settings a UNet can have: heads and groups that divide the channels of its levels, sides that can be halved."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from diffusion_art.errors import UserError


def heads_of(width: int, head_channels: int) -> int:
    """How many heads of equal width a level gets: of `head_channels`, or of as few more as divide it."""
    if head_channels < 1:
        raise UserError(f"model.backbone.head_channels={head_channels} must be at least 1; 24 to 64 are usual")
    return next(heads for heads in range(max(1, width // head_channels), 0, -1) if width % heads == 0)


def check(
    sample_size: int,
    sides: Sequence[int],
    attends: Sequence[bool],
    block_channels: Sequence[int],
    attention_sides: Sequence[int],
    norm_groups: int,
) -> None:
    """UserError for settings that do not go together."""
    if any(2 * below != above for above, below in pairwise(sides)):
        raise UserError(
            f"a UNet of {len(sides)} levels halves its input {len(sides) - 1} times, and latents of side "
            f"{sample_size} cannot be: use an image size that is a multiple of {2 ** (len(sides) - 1)} "
            "after the codec."
        )
    if not any(attends):
        raise UserError(
            f"no level of the UNet has a side of attention_sides={list(attention_sides)}: at this image size "
            f"they have {', '.join(map(str, sides))}. Set model.backbone.attention_sides to some of them."
        )
    for width in block_channels:
        if width % norm_groups:
            raise UserError(
                f"block_channels={width} does not divide into norm_groups={norm_groups} groups: choose a multiple of "
                "that, such as the next one, or fewer groups."
            )
