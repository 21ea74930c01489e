"""What the metrics in CLIP's space share: which CLIP, and how many pictures."""

from __future__ import annotations

from typing import ClassVar

from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.metrics.metric import Metric, at_least
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.reference import check_there


class ClipMetric(Metric):
    """Looks at `pictures` with an open_clip model; `pretrained` is its tag or a file of weights."""

    against = "real"
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

    def check_data(self, data: RunData, networks: Networks) -> None:
        check_there(data.real(), self.pictures)
