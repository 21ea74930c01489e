"""Shapes by name, the two records that cross module borders, and how tensors go to a device and come back from it.

Legend: `b` batch, `c` channels, `h w` pixels or latents, `l` tokens, `d` features.
Images are floats in [-1, 1] here and everywhere between `data/transforms.py` and `to_uint8`; a batch on its way
from a loader to the device carries them as bytes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

log = logging.getLogger(__name__)


@dataclass
class Batch:
    """One rank's slice of a global batch. Not frozen: Lightning moves it to the device field by field."""

    images: Float[Tensor, "b c h w"] | UInt8[Tensor, "b c h w"]  # [-1, 1]; from a loader still 0..255
    captions: list[str]  # b
    keys: list[str]  # b, the samples' stable keys
    positions: list[int]  # b, place of each sample in the endless order (epoch * samples + place in epoch)
    cursor: int  # global batches consumed once this one has been trained on
    encoded: bool = False  # images are the codec's latents; from a loader the bytes of bfloat16, twice as wide
    cond: Conditioning | None = None  # what the text encoder said of the captions, where that was computed before
    features: Float[Tensor, "b m g g"] | None = None  # what an image tower saw in the pictures, likewise

    def __len__(self) -> int:
        return len(self.captions)

    def pin_memory(self) -> Batch:
        """What a loader with `pin_memory` calls, so that the pictures go to the device while it computes."""
        features = None if self.features is None else self.features.pin_memory()
        return replace(
            self, images=self.images.pin_memory(), cond=self.cond and self.cond.pin_memory(), features=features
        )


@dataclass
class Conditioning:
    """What the backbone is told about each caption."""

    tokens: Float[Tensor, "b l d"]  # token states, for cross-attention
    mask: Bool[Tensor, "b l"]  # True where a token is real, False for padding
    pooled: Float[Tensor, "b p"]  # one vector per caption, joined to the time embedding

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Conditioning:
        """The chosen rows, still batched."""
        return Conditioning(self.tokens[rows], self.mask[rows], self.pooled[rows])

    def to(self, *args, **kwargs) -> Conditioning:
        """As `Tensor.to`: all of it on one device, a dtype for the two that are floats."""
        tokens = self.tokens.to(*args, **kwargs)
        mask = self.mask.to(tokens.device, non_blocking=kwargs.get("non_blocking", False))
        return Conditioning(tokens, mask, self.pooled.to(*args, **kwargs))

    def pin_memory(self) -> Conditioning:
        return Conditioning(self.tokens.pin_memory(), self.mask.pin_memory(), self.pooled.pin_memory())

    @staticmethod
    def cat(parts: list[Conditioning]) -> Conditioning:
        """Stack along the batch, padding every part to the longest token length."""
        length = max(part.tokens.shape[1] for part in parts)
        padded = [part.pad_to(length) for part in parts]
        return Conditioning(
            torch.cat([part.tokens for part in padded]),
            torch.cat([part.mask for part in padded]),
            torch.cat([part.pooled for part in padded]),
        )

    def pad_to(self, length: int) -> Conditioning:
        """Pad the token axis with masked zeros up to `length`."""
        missing = length - self.tokens.shape[1]
        if missing <= 0:
            return self
        return Conditioning(
            torch.nn.functional.pad(self.tokens, (0, 0, 0, missing)),
            torch.nn.functional.pad(self.mask, (0, missing)),
            self.pooled,
        )


def to_uint8(images: Float[Tensor, "*b c h w"]) -> UInt8[np.ndarray, "*b h w c"]:
    """[-1, 1] floats to 8-bit pixels, channels last. Values outside are clipped; NaNs come out grey."""
    images = images.detach().float().cpu()
    if not torch.isfinite(images).all():
        log.warning("a picture holds values that are not finite; they are painted grey")
        images = images.nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0)
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-3, -1).numpy()


# ---------------------------------------------------------------------- copies
#
# A plain `.to("cuda")` of host memory, and every `.item()` of a device's tensor, hold the host until the GPU has done
# all the work queued before. A step without one of them lets the host queue the next step while the GPU computes. So
# neither side waits for the copies here.


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The same values on `device`. To a GPU they go through pinned memory, and the host does not wait."""
    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device, non_blocking=True)
    return tensor.pin_memory().to(device, non_blocking=True)


class Reading:
    """The values of a tensor, on their way to the host: `ready` says whether they are there, `values` waits for them.

    Reading a value of a GPU when it is ready costs no time. What becomes of the tensor afterwards does
    not matter. A CPU's values are ready at once.
    """

    def __init__(self, tensor: Tensor) -> None:
        tensor = tensor.detach()
        self._event: torch.cuda.Event | None = None
        if tensor.device.type != "cuda":
            self._host = tensor.to("cpu", copy=True)
            return
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype).pin_memory()
        self._host.copy_(tensor, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record()

    @property
    def ready(self) -> bool:
        return self._event is None or self._event.query()

    def values(self) -> Tensor:
        """On the CPU, of the tensor's shape and dtype."""
        if self._event is not None:
            self._event.synchronize()
        return self._host
