"""Memorisation: are painted pictures copies of training pictures?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from diffusion_art.errors import UserError
from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.metrics.by_neighbours import ROWS, nearest
from diffusion_art.evaluation.metrics.metric import Figure, InFeatures, at_least
from diffusion_art.evaluation.networks import Networks, features_of
from diffusion_art.evaluation.reference import check_there
from diffusion_art.evaluation.subject import Subject
from diffusion_art.images import save_grid

FILE = "memorisation.png"
SAME = 1e-5  # two training pictures nearer than that are one picture, stored twice


@dataclass(kw_only=True, eq=False)
class Memorisation(InFeatures):
    """How many painted pictures are nearer to a training picture than training pictures are to each other.

    Nearness is the angle between features of a network. The threshold is a low quantile of the distances from training
    pictures to their nearest neighbours in the training set, so that of pictures that are no copies about that share
    falls below it too. The nearest pairs are drawn side by side in `memorisation.png`: look at them.

    Papers: Somepalli et al. 2023, Diffusion art or digital forgery, https://arxiv.org/abs/2212.03860; Meehan et al.
    2020, A non-parametric test to detect data-copying, https://arxiv.org/abs/2004.05675
    """

    figures = (
        Figure("memorised", "memorised", "lower", percent=True),
        Figure("expected", "memorised by chance", "neither", percent=True),
    )
    sliced = (1, Figure("memorised", "memorised", "lower", percent=True))

    quantile: float = 0.01
    train_pictures: int | None = None
    calibrated_on: int = 2048
    drawn: int = 12

    def __post_init__(self) -> None:
        at_least(1, pictures=self.pictures, drawn=self.drawn)
        at_least(3, calibrated_on=self.calibrated_on)
        if not 0 < self.quantile < 1:
            raise UserError(f"quantile={self.quantile} is not between 0 and 1: a usual one is 0.01.")

    def check_data(self, data: RunData, networks: Networks) -> None:
        if data.has_training_pictures:
            super().check_data(data, networks)

    def refusal(self, subject: Subject) -> str | None:
        if subject.data.has_training_pictures:
            return None
        return (
            "memorisation looks for copies of training pictures, and this run read its own from a server: give the "
            "shards behind it as real=FOLDER"
        )

    def measure(self, subject: Subject) -> dict[str, Any]:
        check_there(subject.real, self.pictures)
        train = self._train(subject)
        threshold = self._threshold(train)
        distances, places = self._nearest(subject, train)
        copies = subject.remembered(self._asked, self.pictures, lambda: distances[:, 0] <= threshold)
        shown = distances[:, 0].argsort()[: self.drawn]
        if subject.folder is not None:
            self._draw(subject, shown, distances, places, threshold=threshold, copies=int(copies.sum()))
        return {
            "memorised": float(copies.double().mean()),
            "expected": self.quantile,
            "copies": int(copies.sum()),
            "threshold": threshold,
            "nearest": [
                {"picture": row, "distance": float(distances[row, 0]), "training_picture": int(places[row, 0])}
                for row in shown.tolist()
            ],
            "train_pictures": len(train),
            "features": self.features,
            "pictures": self.pictures,
            **({"file": FILE} if subject.folder is not None else {}),
        }

    def of_rows(self, subject: Subject, rows: Sequence[int]) -> float:
        return float(self._copies(subject)[list(rows)].double().mean())

    def _copies(self, subject: Subject) -> Bool[Tensor, " m"]:
        """Which painted pictures count as memorised; asked for each slice, found once."""

        def look() -> Tensor:
            train = self._train(subject)
            return self._nearest(subject, train)[0][:, 0] <= self._threshold(train)

        return subject.remembered(self._asked, self.pictures, look)

    @property
    def _asked(self) -> str:
        return f"memorised {self.features} {self.quantile} {self.train_pictures} {self.calibrated_on}"

    def _train(self, subject: Subject) -> Float[Tensor, "n d"]:
        there = subject.trained_on.there or 0
        count = there if self.train_pictures is None else min(self.train_pictures, there)
        if count < 3:
            raise UserError(f"memorisation takes at least 3 training pictures, and there are {count}.")
        features = self.network(subject.networks)

        def look() -> Tensor:
            return F.normalize(features_of(subject.trained_on, count, features)).float()

        return subject.remembered(f"train {self.features}", count, look)

    def _threshold(self, train: Float[Tensor, "n d"]) -> float:
        """The quantile of distances from training pictures to their nearest others; copies among them do not count."""
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[: self.calibrated_on]
        apart = torch.cat([_to_others(train[rows], train) for rows in chosen.split(ROWS)])
        apart = apart[apart.isfinite()]
        if not len(apart):
            raise UserError(
                "all training pictures are the same one, so no distance tells a copy: leave memorisation out."
            )
        return float(apart.quantile(self.quantile))

    def _nearest(self, subject: Subject, train: Tensor) -> tuple[Float[Tensor, "m 2"], Int[Tensor, "m 2"]]:
        features = self.network(subject.networks)
        painted = F.normalize(subject.painted_features(features, self.pictures)).float()
        return nearest(painted, train, 2)

    def _draw(
        self, subject: Subject, rows: Tensor, distances: Tensor, places: Tensor, *, threshold: float, copies: int
    ) -> None:
        painted = subject.painted(self.pictures)
        images, told = [], []
        for row in rows.tolist():
            images.append(painted.images[row])
            told.append(f"painted: {painted.captions[row]}")
            for place, distance in zip(places[row].tolist(), distances[row].tolist()):
                found = subject.trained_on.at(place)
                images.append(found.images[0])
                told.append(f"training, {distance:.3f} away: {found.captions[0]}")
        title = f"{copies} of {self.pictures:,} painted pictures are within {threshold:.3f} of a training picture"
        assert subject.folder is not None
        save_grid(torch.stack(images), told, subject.folder / FILE, columns=6, title=title, metadata=subject.story)


def _to_others(x: Float[Tensor, "m d"], train: Float[Tensor, "n d"]) -> Float[Tensor, " m"]:
    """From training pictures to the nearest that is not the same picture; infinite where there is none."""
    distances = 1 - x @ train.T
    return distances.masked_fill_(distances < SAME, torch.inf).min(1).values
