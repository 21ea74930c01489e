"""What `TextToImage` asks of the raw network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.tensors import Conditioning


class Backbone(nn.Module, ABC):
    """(x_t, t, cond) -> what the `prediction` says: epsilon, v, x_0 or flow, in the shape of x_t.

    Rows do not mix, padding tokens do not matter, and an untrained network answers zero.
    """

    outer: ClassVar[tuple[str, ...]] = ()  # its first and last layers and look-up tables, which Muon leaves to AdamW
    channels: int  # of x_t
    sample_size: int  # side of x_t
    side_multiple: int = 1  # x_t of other sides that this divides are taken too
    cross_attention_dim: int  # of a caption's token states
    pooled_dim: int  # of a caption's pooled vector
    maps: Mapping[str, int] = {}  # channels of the maps that `with_map` gives, by place; the best to align comes first
    regions: tuple[type[nn.Module], ...] = ()  # the kinds of blocks that are compiled one by one

    @property
    def shards(self) -> Sequence[nn.Module]:
        """Blocks that follow each other and hold most of the weights; none: it is gathered as a whole."""
        return ()

    @abstractmethod
    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c h w"]: ...

    def with_map(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning, place: str
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b m h2 w2"]]:
        """What `forward` answers, and the map that it had at a place of `maps`, on the grid of that place."""
        raise NotImplementedError(f"{type(self).__name__} has no maps")
