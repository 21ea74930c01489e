"""What `TextToImage` asks of a text encoder.

`""` is the caption of no caption: what training shows in place of a dropped caption, and what guidance
compares with. Padding is masked, so a caption's conditioning does not depend on its batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from diffusion_art.tensors import Conditioning


class TextEncoder(nn.Module, ABC):
    """What `TextToImage` asks of a text encoder."""

    dim: int  # of a token state
    pooled_dim: int  # of the pooled vector
    context_length: int  # tokens it reads; a longer caption is cut, counted and reported
    trainable: bool  # False: frozen, its weights stay out of checkpoints, averages and optimisers
    outer: ClassVar[tuple[str, ...]] = ()  # its look-up tables, which Muon leaves to AdamW

    @classmethod
    def reachable(cls, settings: Mapping[str, Any]) -> bool:
        """Whether the weights that it starts from can be had here, of one with these settings. Asked before it is made,
        where a run knows another encoder to go on with.
        """
        return True

    @classmethod
    def called(cls, settings: Mapping[str, Any]) -> str:
        """What weights of one with these settings are called, in a sentence."""
        return cls.__name__

    @abstractmethod
    def encode(self, captions: list[str]) -> Conditioning:
        """One row per caption, padded to the longest, rounded up to a multiple of 8 tokens."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Who it is, as plain data for a checkpoint."""

    @property
    @abstractmethod
    def truncated(self) -> int:
        """How many distinct captions did not fit so far."""
