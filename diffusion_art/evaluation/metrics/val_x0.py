"""Validation loss in one space for all recipes: the squared error in x_0 at fixed places on the log-SNR axis.

    val_x0 = sum_k w_k mean |x_0_hat(x_t(l_k)) - x_0|^2 / sum_k w_k,     w_k = sigmoid(l_k)

Each picture is noised to log SNR l = -6, -4, ..., 6 with noise of its own. Whatever the network predicts and whatever
path its schedule takes, x_0_hat at a given log SNR answers one question, so losses compare across v, epsilon, flow,
x_0 and any schedule. The weights are SiD2's: on the epsilon error, sigmoid(-l); the finest detail and pure noise count
little.

Papers: Kingma & Gao 2023, https://arxiv.org/abs/2303.00848; Hoogeboom et al. 2024,
https://arxiv.org/abs/2410.19324
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.denoiser import image_scales
from diffusion_art.diffusion.samplers.base import per_image_generators, unit_noise
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError
from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.metrics.metric import Figure, Metric, at_least
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.progress import progressing
from diffusion_art.evaluation.subject import Subject
from diffusion_art.models.text_to_image import TextToImage


class X0Error(Metric):
    """The squared error of its guess at the clean picture, on pictures kept from training, at fixed noise levels.

    It compares recipes of any prediction and schedule. Guidance and sampler play no part in it.
    """

    figures = (Figure("val_x0", "x_0 error", "lower"),)
    against = "kept"

    def __init__(self, *, pictures: int = 256) -> None:
        at_least(1, val_pictures=pictures)
        self.pictures = pictures

    def check_data(self, data: RunData, networks: Networks) -> None:
        if data.kept().there == 0:
            raise UserError(
                "val_x0 is measured on pictures kept for validation, and this data has none. Name other shards with "
                "real=FOLDER, or leave val_x0 out: 'metrics=[kid]'."
            )

    def check_model(self, model: Callable[[], TextToImage]) -> None:
        check_model(model())

    def measure(self, subject: Subject) -> dict[str, Any]:
        self.check_data(subject.data, subject.networks)
        there = subject.kept.there
        real = subject.kept.reference(self.pictures if there is None else min(self.pictures, there))
        return x0_error(subject.model, real.images, real.captions, batch_size=subject.batch_size)


LOG_SNRS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)


@torch.no_grad()
def x0_error(
    model: TextToImage,
    images: Float[Tensor, "n 3 h w"],
    captions: list[str],
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> dict[str, Any]:
    """{"val_x0": the weighted mean, "by_log_snr": the mean squared error at each, ...}, ready for json.

    x_0_hat as samplers see it: of the caption alone, clipped to the range of pictures. Errors and noise are taken
    in pixels, so that codecs compare too; the noise depends on `seed` and the picture's place, not on the batch.

    Raises:
        UserError: a codec whose latents are not pixels, or a schedule that does not reach these log SNRs.
    """
    check_model(model)
    times = [_time_at(model.schedule, log_snr) for log_snr in LOG_SNRS]
    sums = torch.zeros(len(LOG_SNRS), dtype=torch.float64)
    starts = range(0, len(images), batch_size)
    for start in progressing(starts, f"x_0 error of {len(images):,} pictures", of=len(starts)):
        x_0 = images[start : start + batch_size].to(model.device)
        denoiser = model.denoiser(model.encode_captions(captions[start : start + batch_size]))
        generators = per_image_generators([seed + row for row in range(start, start + len(x_0))])
        for place, time in enumerate(times):
            eps = unit_noise(generators, (3, x_0.shape[2], x_0.shape[3])).to(model.device)
            t = torch.full((len(x_0),), time, device=model.device)
            alpha, sigma = image_scales(model.schedule, t)
            x_t = alpha * model.codec.encode(x_0) + sigma * model.codec.encode(eps)
            error = model.codec.decode(denoiser(x_t, t)) - x_0
            sums[place] += error.cpu().double().square().mean((1, 2, 3)).sum()
    errors = sums / len(images)
    weights = torch.tensor(LOG_SNRS, dtype=torch.float64).sigmoid()
    return {
        "val_x0": float((weights * errors).sum() / weights.sum()),
        "by_log_snr": {f"{log_snr:g}": error for log_snr, error in zip(LOG_SNRS, errors.tolist())},
        "weights": {f"{log_snr:g}": weight for log_snr, weight in zip(LOG_SNRS, weights.tolist())},
        "pictures": len(images),
        "seed": seed,
    }


def check_model(model: TextToImage) -> None:
    """UserError for a codec whose latents are not pixels, or a schedule that does not reach these log SNRs."""
    if not model.codec.bounded:
        raise UserError(
            f"val_x0 compares pixels, and latents of {type(model.codec).__name__} are none: leave it out of metrics."
        )
    for log_snr in LOG_SNRS:
        _time_at(model.schedule, log_snr)


def _time_at(schedule: Schedule, log_snr: float) -> float:
    wanted = torch.tensor([log_snr], dtype=torch.float64)
    t = schedule.t_of_log_snr(wanted)
    if not torch.allclose(reached := schedule.log_snr(t), wanted, atol=1e-3):
        raise UserError(
            f"val_x0 asks for log SNR {log_snr:g}, and {schedule!r} gets no nearer than {reached.item():.2f}: leave it "
            "out of metrics."
        )
    return t.item()
