"""Copies that nobody waits for, on a CPU and to a pretended GPU."""

from __future__ import annotations

import torch

from diffusion_art.devices import Reading, sent
from tests.waiting import NoWaiting, a_gpu


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
