"""The squared error in x_0 at fixed log SNRs."""

from __future__ import annotations

from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.metrics.metric import Figure, Metric, at_least
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.subject import Subject
from diffusion_art.evaluation.x0_error import x0_error


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

    def measure(self, subject: Subject) -> dict[str, Any]:
        self.check_data(subject.data, subject.networks)
        there = subject.kept.there
        real = subject.kept.reference(self.pictures if there is None else min(self.pictures, there))
        return x0_error(subject.model, real.images, real.captions, batch_size=subject.batch_size)
