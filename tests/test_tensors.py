"""A record moves wholly: each of its tensors is where it was told to go, and stays there. Nobody waits for a copy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from diffusion_art.tensors import Batch, Conditioning, Reading, sent, to_uint8
from tests.waiting import NoWaiting, a_gpu


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


def test_the_ends_and_the_middle_of_the_range():
    image = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).expand(3, 1, 5)
    assert to_uint8(image)[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_every_8_bit_value_comes_back():
    pixels = torch.arange(256, dtype=torch.float32).reshape(1, 1, 16, 16)
    assert np.array_equal(to_uint8(pixels / 127.5 - 1)[0, ..., 0], pixels[0, 0].numpy())


def test_what_is_not_finite_is_grey_and_said(caplog):
    image = torch.zeros(3, 2, 2)
    image[0, 0, 0] = torch.nan
    with caplog.at_level(logging.WARNING):
        assert to_uint8(image)[0, 0, 0] == 128
    assert "not finite" in caplog.text


def test_on_a_cpu_a_reading_is_there_at_once_and_keeps_its_values():
    x = torch.arange(3.0)
    reading = Reading(x)
    x.zero_()
    assert reading.ready
    assert reading.values().tolist() == [0.0, 1.0, 2.0]
    assert torch.equal(sent(x, "cpu"), x)


def test_to_and_from_a_gpu_nothing_waits():
    with a_gpu(), NoWaiting() as mode:
        there = sent(torch.arange(3), "cuda")
        reading = Reading(there)
        assert there.device.type == "cuda"
        assert not reading.ready
        assert reading.values().device.type == "cpu"
    assert mode.sent == {"_to_copy": 1, "copy_": 1}
