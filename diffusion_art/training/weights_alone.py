"""Steps of models that are their trained weights and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from diffusion_art.record import Record


class WeightsAlone(nn.Module):
    """What a step of such a model has to say of checkpoints: nothing."""

    def frozen(self) -> dict[str, Any]:
        """It has no frozen parts."""
        return {}

    def check(self, record: Record) -> None:
        """Nothing in it has to be the same elsewhere."""

    def saved(self) -> dict[str, Any]:
        return {}

    def resume(self, ours: Mapping[str, Any]) -> None:
        """It has no state besides its weights."""
