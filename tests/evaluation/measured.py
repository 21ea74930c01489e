"""A subject of a small painter whose pictures are given, for metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.subject import Subject
from tests.fakes import toy_model

PAINTER = {"_target_": "diffusion_art.sources.painter.Painter", "seed": 3, "count": 64, "image_size_px": 16}


def subject_of(
    paint: Callable[[list[str], list[int]], Tensor], *, folder: Path | None = None, **config: Any
) -> Subject:
    """What paints with `paint`, as if it had been trained on 64 paintings of 16 px."""
    config = {"model": {"image_size_px": 16}, "data": {"source": PAINTER}} | config
    return Subject(toy_model(), paint, RunData(config), Networks(), folder, {"checkpoint": "toy"}, batch_size=16)


def noise(captions: list[str], seeds: list[int]) -> Tensor:
    """Pictures of nothing."""
    generator = torch.Generator().manual_seed(seeds[0])
    return torch.randn(len(seeds), 3, 16, 16, generator=generator).clamp(-1, 1)
