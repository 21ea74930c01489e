"""CMMD and CLIP score with a small CLIP of random weights from a folder; one sentence where there are no weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion_art.errors import UserError
from diffusion_art.evaluation.distances import kernel_error
from diffusion_art.evaluation.metrics.clip import ClipDiscrepancy, ClipScore
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.reference import painted
from tests.evaluation.measured import noise, subject_of
from tests.fakes import tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> dict[str, str | None]:
    return {"model": f"local-dir:{tiny_clip(tmp_path_factory.mktemp('clip'))}", "pretrained": None}


def fresh(captions: list[str], seeds: list[int]) -> torch.Tensor:
    return painted(48, image_size_px=16, seed=5).images[torch.tensor(seeds)]


def test_cmmd_is_the_papers_estimate_and_larger_for_noise_than_for_paintings(clip):
    metric = ClipDiscrepancy(pictures=48, **clip)
    alike, far = (metric.measure(subject_of(paint)) for paint in (fresh, noise))
    assert 3 * alike["cmmd"] < far["cmmd"]
    subject = subject_of(noise)
    features = subject.networks.clip_features(**clip)
    x, y = subject.real_features(features, 48), subject.painted_features(features, 48)
    torch.testing.assert_close(x.norm(dim=1), torch.ones(48).double(), atol=1e-5, rtol=0)
    pairs = [(a, b) for a in x for b in y]
    across = sum(float(torch.exp(-(a - b).square().sum() / 200)) for a, b in pairs) / len(pairs)
    own = sum(torch.exp(-torch.cdist(side, side).square() / 200).mean() for side in (x, y))
    assert far["cmmd"] == pytest.approx(1000 * float(own - 2 * across), rel=1e-6, abs=1e-9)


def test_the_clip_score_is_the_mean_cosine_with_the_captions(clip):
    metric = ClipScore(pictures=20, **clip)
    subject = subject_of(fresh)
    result = metric.measure(subject)
    net = subject.networks.clip(**clip)
    cosines = (net.images(fresh([], list(range(20)))) * net.captions(subject.real.captions(20))).sum(1)
    assert result["clip_score"] == pytest.approx(100 * float(cosines.clamp(min=0).mean()), abs=1e-4)
    assert metric.of_rows(subject, range(20)) == pytest.approx(result["clip_score"])
    assert result["error"] == pytest.approx(100 * float(cosines.clamp(min=0).std()) / 20**0.5, abs=1e-4)
    real = metric.measure(subject_of(lambda captions, seeds: painted(20, image_size_px=16).images[: len(seeds)]))
    assert real["real"] == pytest.approx(result["real"])


def test_weights_that_cannot_be_had_are_one_sentence_with_the_ways_out(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"cannot be reached.*clip\.pretrained=FILE.*metrics=\[kid\]"):
        ClipScore(model=f"local-dir:{tmp_path}", pretrained=None).check(Networks())
    with pytest.raises(UserError, match="did you mean"):
        ClipDiscrepancy(model="ViT-B-33").check(Networks())


def test_the_jackknife_tells_the_spread_of_independent_estimates():
    values, errors = [], []
    for k in range(60):
        generator = torch.Generator().manual_seed(k)
        x, y = (torch.randn(80, 3, generator=generator, dtype=torch.float64) for _ in range(2))
        kernels = [torch.exp(-torch.cdist(a, b).square() / 2) for a, b in ((x, x), (y + 0.7, y + 0.7), (x, y + 0.7))]
        values.append(float(kernels[0].mean() + kernels[1].mean() - 2 * kernels[2].mean()))
        errors.append(kernel_error(*kernels, own_pairs=True))
    spread = float(torch.tensor(values).std())
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.3)
