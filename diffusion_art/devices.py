"""What the machine at hand can do."""

from __future__ import annotations

import torch


def pick_device(name: str = "auto") -> str:
    """The device asked for; `auto` is the best there is."""
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def computes_in_bf16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are fast on this device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def leave_cores() -> int:
    """Compute on one core in this thread from now on, so that another can have them all; returns how many they are.

    OpenMP's threads wait for their next operation awake only while there are no more of them than cores, and each
    thread that computes on several keeps as many. With two such, every operation begins with waking others: a small
    network then takes half as long again. So a program that computes in one thread of several leaves this to it.
    """
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    return cores
