"""What is measured: a model that paints in one way, and the pictures it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.evaluation.caption_following import Generate
from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.features import Features
from diffusion_art.evaluation.networks import Networks, features_of
from diffusion_art.evaluation.progress import progressing
from diffusion_art.evaluation.reference import Pictures, Reference
from diffusion_art.evaluation.work import Work
from diffusion_art.models.text_to_image import TextToImage


@dataclass
class Subject:
    """A model and its data, as every metric sees them. Pictures are painted once and features taken once for all.

    Picture `i` is painted from the caption of real picture `i` and from seed `1,000,000 seed + i`.
    """

    model: TextToImage
    generate: Generate
    data: RunData
    networks: Networks
    folder: Path | None  # where a metric may leave files of its own
    story: dict[str, Any]  # checkpoint, weights and how it paints: what such files say of their origin
    seed: int = 0
    batch_size: int = 48
    work: Work | None = None
    _seen: dict[tuple[str, int], Tensor] = field(default_factory=dict)  # features taken so far
    _painted: dict[int, Tensor] = field(default_factory=dict)

    @cached_property
    def real(self) -> Pictures:
        """What its pictures are compared with."""
        return self.data.real()

    @cached_property
    def kept(self) -> Pictures:
        """Pictures that training did not show."""
        return self.data.kept()

    @cached_property
    def trained_on(self) -> Pictures:
        return self.data.trained_on()

    def painted(self, count: int) -> Reference:
        """`count` pictures, painted from the captions of as many real ones."""
        captions = self.real.captions(count)
        starts = range(0, count, self.batch_size)
        shown = progressing(starts, f"painting {count:,} pictures", of=len(starts))
        parts = [self._batch(start, captions) for start in shown]
        return Reference(torch.cat(parts)[:count], captions)

    def some_painted(self, count: int) -> Reference | None:
        """The first pictures that were painted, at most `count`; None where no metric asked for any."""
        if not self._painted:
            return None
        images = torch.cat([self._painted[start] for start in sorted(self._painted)])[:count]
        return Reference(images, self.real.captions(len(images)))

    def remembered(self, what: str, count: int, make: Callable[[], Tensor]) -> Tensor:
        """What was made of the first `count` pictures before, or is made now."""
        if (what, count) not in self._seen:
            self._seen[what, count] = make()
        return self._seen[what, count]

    def real_features(self, features: Features, count: int) -> Float[Tensor, "n d"]:
        return self.remembered(f"real {features.name}", count, lambda: features_of(self.real, count, features))

    def painted_features(self, features: Features, count: int) -> Float[Tensor, "n d"]:
        def look() -> Tensor:
            told = f"{features.name} of {count:,} painted pictures"
            return features(self.painted(count).images, progress=told)

        return self.remembered(f"painted {features.name}", count, look)

    def _batch(self, start: int, captions: list[str]) -> Tensor:
        stop = min(start + self.batch_size, len(captions))
        if start not in self._painted or len(self._painted[start]) < stop - start:
            seeds = [1_000_000 * self.seed + row for row in range(start, stop)]
            self._painted[start] = self.paint(captions[start:stop], seeds)
        return self._painted[start]

    def paint(self, captions: list[str], seeds: list[int]) -> Float[Tensor, "b 3 h w"]:
        """One batch of pictures; where the work is kept, those painted before an interruption."""
        if self.work is None:
            return self.generate(captions, seeds)
        return self.work.pictures(captions, seeds, self.generate)
