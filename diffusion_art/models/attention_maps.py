"""Where in a picture each word of its caption is looked at, recorded while the picture is painted.

    map_j(x) = mean over layers and heads of softmax_j(q_x k_j / sqrt(d))

The maps of all layers, each as coarse as its layer's grid, are brought to the side of x_t and averaged over layers and
heads; `mean` averages over the steps of the sampler too.

Paper: Tang et al. 2023, What the DAAM: Interpreting Stable Diffusion Using Cross Attention,
https://arxiv.org/abs/2210.04885
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from diffusion_art.accel.layers import Attend
from diffusion_art.models.backbone import Backbone


class AttentionMaps:
    """The share of each token of a caption in what a place of the picture attends to, for each call of the backbone.

    `times` holds the t of the calls, `by_time` their maps. Tokens are those of the longest caption of the batch; what
    goes to padding is 0. In a backbone where picture and caption attend jointly, the shares of a place sum to less
    than 1: the rest goes to the picture itself.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.times: list[float] = []
        self.by_time: list[Float[Tensor, "b l h w"]] = []
        self._layers: list[Float[Tensor, "b l h w"]] = []
        self._tokens, self._side = 0, (0, 0)

    def mean(self) -> Float[Tensor, "b l h w"]:
        """Over all calls. ValueError where none was recorded."""
        if not self.by_time:
            raise ValueError("no attention was recorded: paint with the backbone itself, not with a compiled one")
        return torch.stack(self.by_time).mean(0)

    def _begin(self, _: Any, told: tuple[Any, ...]) -> None:
        x_t, t, cond = told
        if len(x_t) not in (self.rows, 2 * self.rows):  # twice as many with guidance
            raise ValueError(f"attention of {self.rows} pictures is recorded, and a batch has {len(x_t)} rows")
        self._layers, self._tokens, self._side = [], cond.tokens.shape[1], x_t.shape[-2:]
        self.times.append(float(t[0]))

    def _see(self, _: Any, told: tuple[Any, ...]) -> None:
        q, k, _, bias = told
        if bias is None:  # the picture looks at itself
            return
        joint = k.shape[2] > self._tokens  # then the caption's tokens stand before the picture's
        shares = _shares(q[: self.rows, :, self._tokens if joint else 0 :], k[: self.rows], bias[: self.rows])[
            ..., : self._tokens
        ]
        height, width = self._side
        rows = round((shares.shape[1] * height / width) ** 0.5)
        coarse = rearrange(shares, "b (h w) l -> b l h w", h=rows)
        self._layers.append(F.interpolate(coarse, size=self._side, mode="bilinear"))

    def _end(self, *_: Any) -> None:
        self.by_time.append(torch.stack(self._layers).mean(0).cpu())


@contextmanager
def attention_maps(backbone: Backbone, *, rows: int) -> Iterator[AttentionMaps]:
    """Within it the backbone's attention to its captions is recorded, of batches of `rows` pictures.

    With guidance a batch has twice as many rows, of which the first have the captions. Hooks do it, so that nothing is
    computed for it otherwise.
    """
    maps = AttentionMaps(rows)
    parts = [part for part in backbone.modules() if isinstance(part, Attend)]
    hooks = [part.register_forward_pre_hook(maps._see) for part in parts]
    hooks += [backbone.register_forward_pre_hook(maps._begin), backbone.register_forward_hook(maps._end)]
    try:
        with torch.no_grad():
            yield maps
    finally:
        for hook in hooks:
            hook.remove()


def word_maps(maps: Float[Tensor, "l h w"], words: Sequence[tuple[str, slice]]) -> Float[Tensor, "k h w"]:
    """For each word the mean map of its tokens over its own mean: 1 is as much attention as anywhere.

    `words` are those of `ClipTokenizer.words`.
    """
    own = torch.stack([maps[tokens].mean(0) for _, tokens in words])
    return own / reduce(own, "k h w -> k 1 1", "mean")


def _shares(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h l d"], bias: Float[Tensor, "b 1 1 l"]
) -> Float[Tensor, "b n l"]:
    """Softmax over the keys, averaged over heads, in float32."""
    logits = q.float() @ k.float().mT * q.shape[-1] ** -0.5 + bias.float()
    return logits.softmax(-1).mean(1)
