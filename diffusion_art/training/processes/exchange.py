"""What the processes of a run tell one another in each step, without waiting until it is read.

Each wait for another process costs the slower one's delay of that moment; those of one step add up. A step has one
wait, for the gradients.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor


class Exchange:
    """A tensor of each process, on its way to be all of them together: their sum, or the greatest.

    The tensor is written in place. All processes begin their exchanges in the same order. The host of a CUDA device
    does not wait for `values` either: the device does.
    """

    def __init__(self, tensor: Tensor, *, greatest: bool = False) -> None:
        self._tensor = tensor
        operation = dist.ReduceOp.MAX if greatest else dist.ReduceOp.SUM
        self._work = dist.all_reduce(tensor, operation, async_op=True)

    def values(self) -> Tensor:
        """The same in every process, of the tensor's shape and dtype."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        return self._tensor


class StepMeans:
    """The losses of an optimiser step, []: their means over its parts and processes, which have as many pictures each.

    The parts of one process are added one by one; `begin` sends their means off, and `taken` hands out those of all.
    """

    def __init__(self) -> None:
        self._parts: list[Mapping[str, Tensor]] = []
        self._own: dict[str, Tensor] | None = None
        self._sent: Exchange | None = None

    def add(self, losses: Mapping[str, Tensor], *, first: bool) -> None:
        """Those of one part, by name."""
        self._parts = [*([] if first else self._parts), losses]

    def begin(self, *, processes: int) -> None:
        self._own = {name: _mean([part[name] for part in self._parts]) for name in self._parts[-1]}
        if processes > 1:
            device = self._parts[-1]["loss"].device  # a term that has ended is told from the CPU
            own = [mean.to(device, torch.float32) for mean in self._own.values()]
            self._sent = Exchange(torch.stack(own) / processes)

    def taken(self) -> dict[str, Tensor] | None:
        """By name, once; None until the last part is added."""
        own, self._own, sent, self._sent = self._own, None, self._sent, None
        if own is None or sent is None:
            return own
        return dict(zip(own, sent.values().unbind(), strict=True))


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean()
