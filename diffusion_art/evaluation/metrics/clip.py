"""What the metrics in CLIP's space share: which CLIP, and how many pictures."""

from __future__ import annotations

from typing import ClassVar

from diffusion_art.evaluation.metrics.metric import AgainstReal, at_least
from diffusion_art.evaluation.networks import Networks


class ClipMetric(AgainstReal):
    """Looks at `pictures` with an open_clip model; `pretrained` is its tag or a file of weights."""

    fewest: ClassVar[int]  # pictures that it can be told of

    def __init__(
        self, *, pictures: int = 1024, model: str = "ViT-B-32", pretrained: str | None = "laion2b_s34b_b79k"
    ) -> None:
        at_least(self.fewest, pictures=pictures)
        self.pictures = pictures
        self.model = model
        self.pretrained = pretrained

    def check(self, networks: Networks) -> None:
        networks.clip(self.model, self.pretrained)
