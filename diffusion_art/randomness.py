"""SplitMix64: random numbers as functions of what they are for, so that nothing needs to be remembered.

Paper: Steele, Lea & Flood 2014, Fast splittable pseudorandom number generators, https://doi.org/10.1145/2660193.2660195
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

Words = TypeVar("Words", np.ndarray, np.uint64)  # uint64, many or one

MASK = 2**64 - 1
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def fold(*numbers: int) -> int:
    """One well-mixed 63-bit seed from several numbers."""
    state = 0
    for number in numbers:
        state = (state ^ (number & MASK)) + _STEP & MASK
        state = (state ^ state >> 30) * _FIRST & MASK
        state = (state ^ state >> 27) * _SECOND & MASK
        state ^= state >> 31
    return state >> 1


def uniforms(seed: int, positions: np.ndarray, *, stream: int) -> np.ndarray:
    """One number in [0, 1) per position, by (seed, stream, position).

    `stream` keeps different uses (flip, crop, ...) independent of each other.
    """
    with np.errstate(over="ignore"):
        key = _mixed(np.array(seed & MASK, np.uint64) + np.uint64(stream) * np.uint64(0xD1B54A32D192ED03))
        bits = _mixed(_mixed(positions.astype(np.uint64) ^ key) + key)
    return np.asarray(bits >> np.uint64(11), np.float64) * 2.0**-53


def scrambled(x: Words) -> Words:
    """A 64-bit hash of each x (uint64) whose top half depends on all of it: the finaliser, but for its last step."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(_FIRST)
    return (x ^ (x >> np.uint64(27))) * np.uint64(_SECOND)


def _mixed(x: Words) -> Words:
    x = scrambled(x + np.uint64(_STEP))
    return x ^ (x >> np.uint64(31))
