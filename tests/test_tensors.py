"""A record moves wholly: each of its tensors is where it was told to go, and stays there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from diffusion_art.tensors import Batch, Conditioning


def batch() -> Batch:
    return Batch(torch.zeros(2, 3, 4, 4), captions=["a", "b"], keys=["1", "2"], positions=[0, 1], cursor=1)


def cond(length: int = 8) -> Conditioning:
    return Conditioning(torch.zeros(2, length, 6), torch.ones(2, length, dtype=torch.bool), torch.zeros(2, 5))


MOVES: dict[str, Callable[[], Any]] = {
    "Lightning moves a batch": lambda: move_data_to_device(batch(), torch.device("meta")),
    "Lightning moves a conditioning": lambda: move_data_to_device(cond(), torch.device("meta")),
    "by a device": lambda: cond().to(torch.device("meta")),
    "by a name": lambda: cond().to("meta"),
    "by keyword": lambda: cond().to(device="meta", non_blocking=True),
    "by device and dtype": lambda: cond().to("meta", torch.float64),
    "like another tensor": lambda: cond().to(torch.zeros(1, device="meta")),
    "some rows": lambda: cond().to("meta")[:1],
    "joined": lambda: Conditioning.cat([cond().to("meta"), cond(16).to("meta")]),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=list(MOVES))
def test_every_tensor_of_a_record_moves(move):
    moved = move()
    tensors = {field.name: getattr(moved, field.name) for field in fields(moved)}
    places = {name: value.device.type for name, value in tensors.items() if isinstance(value, Tensor)}
    assert places
    assert set(places.values()) == {"meta"}, places


@pytest.mark.parametrize(
    "to", [{"dtype": torch.float64}, {"device": "cpu"}, {"device": "meta", "dtype": torch.bfloat16}]
)
def test_the_mask_stays_a_mask(to):
    moved = cond().to(**to)
    assert moved.mask.dtype == torch.bool
    assert moved.tokens.dtype == moved.pooled.dtype == to.get("dtype", torch.float32)
