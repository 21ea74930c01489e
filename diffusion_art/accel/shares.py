"""Tensors of which each process holds a share (torch's DTensor), beside those that are whole here."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def is_shared(x: Tensor) -> bool:
    """Whether each process holds a share of it only."""
    return hasattr(x, "to_local")  # asking for the type would import torch.distributed.tensor for all commands


def own(x: Any) -> Tensor:
    """The share of this process, of which changes are changes of the tensor; a whole tensor itself."""
    return x.detach().to_local() if is_shared(x) else x


def gathered(x: Any) -> Tensor:
    """The whole tensor. Of a shared one every process has to ask for it."""
    return x.detach().full_tensor() if is_shared(x) else x


def share_of(value: Tensor, like: Any) -> Tensor:
    """A whole tensor, which every process has, shared out as `like` is; each process keeps its own share."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device).contiguous(), like.device_mesh, like.placements, src_data_rank=None)


def as_shared(share: Tensor, like: Any) -> Tensor:
    """The tensor of which each process has `share`, in the shares of `like`."""
    from torch.distributed.tensor import DTensor

    whole = {"shape": like.shape, "stride": like.stride()}
    return DTensor.from_local(share, like.device_mesh, like.placements, run_check=False, **whole)


def copy_into(to: Tensor, value: Tensor) -> None:
    """Copy a tensor, whole or shared as `to` is, into another."""
    if is_shared(to) and not is_shared(value):
        value = share_of(value, to)
    own(to).copy_(own(value))
