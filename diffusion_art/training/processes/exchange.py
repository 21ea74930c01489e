"""What the processes of a run tell one another in each step, without waiting until it is read.

Each wait for another process costs the slower one's delay of that moment; those of one step add up. A step has one
wait, for the gradients.
"""

from __future__ import annotations

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
