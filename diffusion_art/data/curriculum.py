"""Progressive resolution: small pictures first, so that the coarse part of painting is learned where it is cheap.

Papers: Karras et al. 2017, https://arxiv.org/abs/1710.10196; of one network on several sizes, with its noise moved
along (`Schedule.resized`): Hoogeboom et al. 2023, https://arxiv.org/abs/2301.11093
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from diffusion_art.data.plan import BatchSizes
from diffusion_art.errors import UserError


class Curriculum:
    """Stages before the full size: `{until: 0.5, shrink: 2}` trains on half the side until half of the steps are done.

    `until` is a share of the run's steps, rising from stage to stage; `shrink` a whole number that divides the full
    size. By 2, 4 and 8 a JPEG is decoded at its smaller size, which is quicker than decoding it whole. No stages: the
    full size from the start. Validation and sample grids are of the full size at all times, so that they compare.

    Raises:
        UserError: shares that do not rise within (0, 1), a shrink below 1, or another key.
    """

    def __init__(self, *, stages: Sequence[Mapping[str, float]] = ()) -> None:
        for stage in stages:
            if set(stage) != {"until", "shrink"}:
                raise UserError(f"a stage of the curriculum is {{until: SHARE, shrink: NUMBER}}, not {dict(stage)}")
            if stage["shrink"] < 1 or stage["shrink"] != int(stage["shrink"]):
                raise UserError(f"shrink={stage['shrink']} must be a whole number, 1 or more; 2 halves the side")
        self.shrinks = [int(stage["shrink"]) for stage in stages]
        self.untils = [Fraction(str(stage["until"])) for stage in stages]
        if any(not low < high for low, high in zip([0, *self.untils], [*self.untils, 1])):
            shares = [float(until) for until in self.untils]
            raise UserError(f"the stages of a curriculum end at rising shares of the run between 0 and 1, not {shares}")

    def sizes_px(self, image_size_px: int) -> tuple[int, ...]:
        """The side of each stage's pictures, the full size last. UserError where a shrink does not divide it."""
        for shrink in self.shrinks:
            if image_size_px % shrink:
                raise UserError(
                    f"pictures of {image_size_px} px cannot shrink by {shrink} to a whole size: choose another shrink "
                    "or data.image_size_px"
                )
        return (*(image_size_px // shrink for shrink in self.shrinks), image_size_px)

    def ends(self, steps: int) -> tuple[int, ...]:
        """The step after which each stage of a run of `steps` is over, the run's last one included."""
        return (*(int(until * steps) for until in self.untils), steps)

    def batch_sizes(self, image_size_px: int, *, batches: int, batches_per_step: int = 1) -> BatchSizes:
        """The plan of a run of `batches` global batches; a step's batches have one size."""
        steps = batches // batches_per_step
        starts = (0, *(end * batches_per_step for end in self.ends(steps)[:-1]))
        return BatchSizes(starts, self.sizes_px(image_size_px))
