"""The common validation loss: one question for every prediction, schedule and codec, and the exact answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_art.diffusion.denoiser import X0, Prediction, image_scales
from diffusion_art.diffusion.schedules import LinearBeta, Schedule
from diffusion_art.errors import UserError
from diffusion_art.evaluation.metrics.val_x0 import LOG_SNRS, x0_error
from diffusion_art.experiments.edm import EDM_SIGMA_MAX, EDM_SIGMA_MIN, Edm
from diffusion_art.models.backbone import Backbone
from diffusion_art.models.codec import Codec, Pixel, Unshuffle2
from diffusion_art.models.text_encoder import OpenClipScratch
from diffusion_art.models.text_to_image import TextToImage
from tests.diffusion.shelf import PAIRS, PREDICTIONS, SCHEDULES
from tests.fakes import toy_model

IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
CAPTIONS = ["red", "blue", "", "a red house", "green"]


class Answering(Backbone):
    """A backbone that outputs, as `prediction`, the x_0_hat that a function gives."""

    def __init__(
        self, x_0_hat: Callable, schedule: Schedule, prediction: Prediction, *, codec: Codec, cond: int
    ) -> None:
        super().__init__()
        self.x_0_hat, self.schedule, self.prediction = x_0_hat, schedule, prediction
        self.channels, self.sample_size = codec.channels, 16 // codec.factor
        self.cross_attention_dim = self.pooled_dim = cond
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x_t: Tensor, t: Tensor, cond) -> Tensor:
        if isinstance(self.prediction, Edm):  # what it is called with has another clock, and another scale
            log_s = math.log(EDM_SIGMA_MIN) + t * math.log(EDM_SIGMA_MAX / EDM_SIGMA_MIN)
            t = self.schedule.t_of_log_snr(-2 * log_s)
        alpha, sigma = image_scales(self.schedule, t)
        x_t = x_t / self.prediction.inputs(torch.ones_like(x_t), t, alpha, sigma)[0]
        x_0 = self.x_0_hat(x_t, alpha, sigma, cond)
        return self.prediction.target(x_0, (x_t - alpha * x_0) / sigma, alpha, sigma)

    def with_map(self, x_t: Tensor, t: Tensor, cond, place: str) -> tuple[Tensor, Tensor]:
        return self(x_t, t, cond), x_t


def answering(x_0_hat: Callable, schedule: Schedule, prediction: Prediction, *, codec: Codec | None = None):
    codec = codec or Unshuffle2()
    encoder = OpenClipScratch(width=16, layers=1, heads=2, vocab_size=600, context_length=16)
    backbone = Answering(x_0_hat, schedule, prediction, codec=codec, cond=encoder.dim)
    return TextToImage(
        backbone=backbone,
        schedule=schedule,
        prediction=prediction,
        text_encoder=encoder,
        codec=codec,
        image_size_px=16,
    ).eval()


@pytest.fixture(scope="module")
def judged() -> tuple[TextToImage, dict[str, Any]]:
    """A model of flow prediction on the flow path, and its scores."""
    model = toy_model()
    return model, x0_error(model, IMAGES, CAPTIONS)


@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [pytest.param(*pair, marks=[] if pair[0] in ("flow", "cosine") else pytest.mark.slow) for pair in PAIRS],
)
def test_one_model_scores_the_same_however_it_is_expressed(schedule: str, prediction: str, judged):
    """A trained network's x_0_hat, put into the words of every other prediction and schedule."""
    model, original = judged

    def x_0_hat(x_t, alpha, sigma, cond):
        straight = x_t / (alpha + sigma)
        t = (sigma / (alpha + sigma)).reshape(-1).expand(len(x_t))
        out = model.denoise(straight, t, cond)
        return model.prediction.to_x0(out, straight, *image_scales(model.schedule, t))

    other = answering(x_0_hat, SCHEDULES[schedule], PREDICTIONS[prediction])
    other.text_encoder = model.text_encoder
    again = x0_error(other, IMAGES, CAPTIONS)
    assert again["by_log_snr"] == pytest.approx(original["by_log_snr"], rel=2e-3)
    assert again["val_x0"] == pytest.approx(original["val_x0"], rel=1e-3)


@pytest.mark.parametrize("codec", [Pixel(), Unshuffle2()], ids=["pixel", "unshuffle2"])
def test_perfect_denoiser_of_gaussian_pixels_has_the_exact_error(codec: Codec):
    """E |x_0 - E[x_0 | x_t]|^2 = s^2 / (1 + SNR s^2) for pixels of standard deviation s."""
    std = 0.2
    images = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * std

    def x_0_hat(x_t, alpha, sigma, cond):
        return alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x_t

    result = x0_error(answering(x_0_hat, SCHEDULES["flow"], X0(), codec=codec), images, [""] * 24)
    exact = {f"{log_snr:g}": std**2 / (1 + std**2 * 2.718281828**log_snr) for log_snr in LOG_SNRS}
    assert result["by_log_snr"] == pytest.approx(exact, rel=0.03)
    weights = torch.tensor(LOG_SNRS).sigmoid()
    expected = (weights * torch.tensor(list(result["by_log_snr"].values()))).sum() / weights.sum()
    assert result["val_x0"] == pytest.approx(expected.item(), rel=1e-5)
    assert result["val_x0"] == pytest.approx(EXACT_TWICE.setdefault("value", result["val_x0"]), rel=1e-5)


EXACT_TWICE: dict[str, float] = {}  # both codecs meet the same noise


def test_it_does_not_depend_on_batches_and_repeats_to_the_bit():
    model = toy_model()
    once = x0_error(model, IMAGES, CAPTIONS)
    assert x0_error(model, IMAGES, CAPTIONS) == once
    assert x0_error(model, IMAGES, CAPTIONS, batch_size=2)["val_x0"] == pytest.approx(once["val_x0"], rel=1e-5)
    assert x0_error(model, IMAGES, CAPTIONS, seed=7)["val_x0"] != once["val_x0"]


def test_what_cannot_be_compared_is_refused():
    short = LinearBeta(beta_start=1e-6, beta_end=1e-5)
    with pytest.raises(UserError, match=r"log SNR -6, and LinearBeta.* gets no nearer than"):
        x0_error(answering(lambda x_t, *_: x_t, short, X0()), IMAGES, CAPTIONS)
    unbounded = Unshuffle2()
    unbounded.bounded = False
    with pytest.raises(UserError, match="latents of Unshuffle2 are none"):
        x0_error(answering(lambda x_t, *_: x_t, SCHEDULES["flow"], X0(), codec=unbounded), IMAGES, CAPTIONS)
