"""Metrics in CLIP's space: does a picture go with its caption (the CLIP score), and how far are painted pictures from
real ones (CMMD)?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusion_art.evaluation.distances import kernel_error
from diffusion_art.evaluation.features import Features
from diffusion_art.evaluation.metrics.metric import AgainstReal, Figure, at_least
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.reference import check_there
from diffusion_art.evaluation.subject import Subject

WIDTH, SCALE = 10.0, 1000.0  # of CMMD's paper


@dataclass(kw_only=True, eq=False)
class ClipMetric(AgainstReal):
    """Looks at `pictures` with an open_clip model; `pretrained` is its tag or a file of weights."""

    fewest: ClassVar[int]  # pictures that it can be told of
    model: str = "ViT-B-32"
    pretrained: str | None = "laion2b_s34b_b79k"

    def __post_init__(self) -> None:
        at_least(self.fewest, pictures=self.pictures)

    def network(self, networks: Networks) -> Features:
        return networks.clip_features(self.model, self.pretrained)


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
        network = self.network(subject.networks)
        scores = self._painted(subject)
        return {
            "clip_score": float(scores.mean()),
            "error": float(scores.std() / len(scores) ** 0.5),
            "real": float(self._against(subject, subject.real_features(network, self.pictures)).mean()),
            "features": network.name,
            "pictures": self.pictures,
        }

    def of_rows(self, subject: Subject, rows: Sequence[int]) -> float:
        return float(self._painted(subject)[list(rows)].mean())

    def _painted(self, subject: Subject) -> Tensor:
        return self._against(subject, subject.painted_features(self.network(subject.networks), self.pictures))

    def _against(self, subject: Subject, images: Tensor) -> Tensor:
        clip = subject.networks.clip(self.model, self.pretrained)
        captions = subject.remembered(
            f"captions {clip.name}",
            self.pictures,
            lambda: clip.captions(subject.real.captions(self.pictures)).cpu().double(),
        )
        return 100 * torch.linalg.vecdot(images, captions).clamp(min=0)


class ClipDiscrepancy(ClipMetric):
    """How far painted pictures are from real ones in CLIP's space, which sees content where FD sees texture.

    1000 (E k(r, r') + E k(f, f') - 2 E k(r, f)) with k(x, y) = exp(-|x - y|^2 / 200), over all pairs, a picture with
    itself included, as the paper's program does. `error` is its standard error by the jackknife.

    Paper: Jayasumana et al. 2024, Rethinking FID, https://arxiv.org/abs/2401.09603
    """

    fewest = 3
    figures = (Figure("cmmd", "CMMD", "lower", error="error"),)
    sliced = (32, Figure("cmmd", "CMMD", "lower"))

    def measure(self, subject: Subject) -> dict[str, Any]:
        check_there(subject.real, self.pictures)
        kernels = _kernels(*self.sides(subject))
        error = SCALE * kernel_error(*kernels, own_pairs=True)
        name = self.network(subject.networks).name
        return {"cmmd": _discrepancy(*kernels), "error": error, "features": name, "pictures": self.pictures}

    def of_rows(self, subject: Subject, rows: Sequence[int]) -> float:
        return _discrepancy(*_kernels(*(side[list(rows)] for side in self.sides(subject))))


def _kernels(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """k(r, r'), k(f, f') and k(r, f)."""
    pairs = ((real, real), (fake, fake), (real, fake))
    k_rr, k_ff, k_rf = (torch.exp(-torch.cdist(x, y).square() / (2 * WIDTH**2)) for x, y in pairs)
    return k_rr, k_ff, k_rf


def _discrepancy(k_rr: Tensor, k_ff: Tensor, k_rf: Tensor) -> float:
    return SCALE * float(k_rr.mean() + k_ff.mean() - 2 * k_rf.mean())
