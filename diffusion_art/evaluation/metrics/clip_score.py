"""The CLIP score: does a picture go with its caption?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_art.evaluation.metrics.clip import ClipMetric
from diffusion_art.evaluation.metrics.metric import Figure
from diffusion_art.evaluation.reference import check_there
from diffusion_art.evaluation.subject import Subject


class ClipScore(ClipMetric):
    """How well pictures go with their captions, as a CLIP sees it: 100 times the mean cosine, at least 0.

    `real` is the score of the real pictures of the same captions, a better yardstick than 100. `error` is the standard
    error of the mean.

    Paper: Hessel et al. 2021, CLIPScore, https://arxiv.org/abs/2104.08718
    """

    fewest = 2
    figures = (
        Figure("clip_score", "CLIP score", "higher", error="error"),
        Figure("real", "CLIP score of the real pictures", "neither"),
    )
    sliced = (1, Figure("clip_score", "CLIP score", "higher"))

    def measure(self, subject: Subject) -> dict[str, Any]:
        check_there(subject.real, self.pictures)
        scores = self._scores(subject, painted=True)
        return {
            "clip_score": float(scores.mean()),
            "error": float(scores.std() / len(scores) ** 0.5),
            "real": float(self._scores(subject, painted=False).mean()),
            "features": subject.networks.clip(self.model, self.pretrained).name,
            "pictures": self.pictures,
        }

    def of_rows(self, subject: Subject, rows: Sequence[int]) -> float:
        return float(self._scores(subject, painted=True)[list(rows)].mean())

    def _scores(self, subject: Subject, *, painted: bool) -> Tensor:
        features = subject.networks.clip_features(self.model, self.pretrained)
        taken = subject.painted_features if painted else subject.real_features
        return self._against(subject, taken(features, self.pictures))

    def _against(self, subject: Subject, images: Tensor) -> Tensor:
        clip = subject.networks.clip(self.model, self.pretrained)
        captions = subject.remembered(
            f"captions {clip.name}",
            self.pictures,
            lambda: clip.captions(subject.real.captions(self.pictures)).cpu().double(),
        )
        return 100 * torch.linalg.vecdot(images, captions).clamp(min=0)
