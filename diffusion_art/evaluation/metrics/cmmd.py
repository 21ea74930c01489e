"""The maximum mean discrepancy in CLIP's space (CMMD)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_art.evaluation.distances import kernel_error
from diffusion_art.evaluation.metrics.clip import ClipMetric
from diffusion_art.evaluation.metrics.metric import Figure
from diffusion_art.evaluation.reference import check_there
from diffusion_art.evaluation.subject import Subject

WIDTH, SCALE = 10.0, 1000.0  # of the paper


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
        real, fake = self._sides(subject)
        kernels = _kernel(real, real), _kernel(fake, fake), _kernel(real, fake)
        error = SCALE * kernel_error(*kernels, own_pairs=True)
        name = subject.networks.clip(self.model, self.pretrained).name
        return {"cmmd": _discrepancy(*kernels), "error": error, "features": name, "pictures": self.pictures}

    def of_rows(self, subject: Subject, rows: Sequence[int]) -> float:
        real, fake = (side[list(rows)] for side in self._sides(subject))
        return _discrepancy(_kernel(real, real), _kernel(fake, fake), _kernel(real, fake))

    def _sides(self, subject: Subject) -> tuple[Tensor, Tensor]:
        features = subject.networks.clip_features(self.model, self.pretrained)
        return subject.real_features(features, self.pictures), subject.painted_features(features, self.pictures)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(-torch.cdist(x, y).square() / (2 * WIDTH**2))


def _discrepancy(k_rr: Tensor, k_ff: Tensor, k_rf: Tensor) -> float:
    return SCALE * float(k_rr.mean() + k_ff.mean() - 2 * k_rf.mean())
