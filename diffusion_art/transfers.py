"""Copies between a host and its GPU that neither side waits for.

A plain `.to("cuda")` of host memory, and every `.item()` of a device's tensor, hold the host until the GPU has done all
the work queued before. A step without one of them lets the host queue the next step while the GPU computes.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
