"""How many cores the threads of this process compute on."""

from __future__ import annotations

import torch


def leave_cores() -> int:
    """Compute on one core in this thread from now on, so that another can have them all; returns how many they are.

    OpenMP's threads wait for their next operation awake only while there are no more of them than cores, and each
    thread that computes on several keeps as many. With two such, every operation begins with waking others: a small
    network then takes half as long again. So a program that computes in one thread of several leaves this to it.
    """
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    return cores
