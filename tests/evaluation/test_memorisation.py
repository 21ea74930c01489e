"""Memorisation: a planted copy is caught and drawn, fresh pictures are not taken for copies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion_art.errors import UserError
from diffusion_art.evaluation.metrics.memorisation import Memorisation
from diffusion_art.evaluation.reference import painted
from diffusion_art.sheets import read_metadata
from diffusion_art.sources.painter import Painter
from tests.evaluation.measured import subject_of

PLANTED = {5: 40, 17: 3}  # picture -> the training picture it is a copy of
NOISE = 0.01


def with_copies(captions: list[str], seeds: list[int]) -> Tensor:
    """Fresh paintings, and two copies of training pictures with a little noise."""
    fresh = painted(32, image_size_px=16, seed=5).images
    painter = Painter(seed=3, count=64, image_size_px=16)
    generator = torch.Generator().manual_seed(0)
    images = fresh[torch.tensor(seeds)].clone()
    for row, seed in enumerate(seeds):
        if seed in PLANTED:
            copy = torch.from_numpy(painter.paint(PLANTED[seed]).image).permute(2, 0, 1).float() / 127.5 - 1
            images[row] = copy + NOISE * torch.randn(copy.shape, generator=generator)
    return images


@pytest.mark.parametrize("features", ["judge", "efficientnet_lite0"])
def test_planted_copies_are_caught_and_drawn_beside_what_they_copy(features: str, tmp_path: Path):
    subject = subject_of(with_copies, folder=tmp_path)
    result = Memorisation(pictures=32, features=features, quantile=0.02, drawn=4).measure(subject)
    found = {one["picture"]: one["training_picture"] for one in result["nearest"][: len(PLANTED)]}
    assert found == PLANTED
    assert all(one["distance"] <= result["threshold"] for one in result["nearest"][: len(PLANTED)])
    assert len(PLANTED) <= result["copies"] <= 6
    assert result["memorised"] == result["copies"] / 32
    assert result["train_pictures"] == 64
    with Image.open(tmp_path / result["file"]) as sheet:
        assert sheet.width > 6 * 144
    captions = read_metadata(tmp_path / result["file"])["captions"]
    assert captions.count("painted: ") == 4
    assert captions.count("away: ") == 8


def test_a_picture_stored_twice_does_not_lower_the_threshold():
    subject = subject_of(with_copies)
    metric = Memorisation(pictures=32, features="judge", quantile=0.5)
    train = metric._train(subject)
    assert metric._threshold(torch.cat([train, train])) == pytest.approx(metric._threshold(train))
    with pytest.raises(UserError, match="same one"):
        metric._threshold(train[:1].expand(5, -1))


def test_settings_that_mean_nothing_and_runs_without_training_pictures_are_named():
    with pytest.raises(UserError, match=r"quantile=1\.5"):
        Memorisation(quantile=1.5)
    away = subject_of(with_copies, data={"url": "ws://127.0.0.1:1/ws", "path": None, "source": None})
    assert "real=FOLDER" in (Memorisation(features="judge").refusal(away) or "")
