"""How long a tick takes, lately."""

from __future__ import annotations


class TickTime:
    """An exponential mean of tick times in seconds, each new one counting a tenth; `first_guess_s` before the first.

    `sum_s` is the sum of them all.
    """

    def __init__(self, *, first_guess_s: float = 0.1) -> None:
        self.mean_s = first_guess_s
        self.sum_s = 0.0
        self._seen = 0

    def add(self, seconds: float) -> None:
        self._seen += 1
        self.sum_s += seconds
        share = max(0.1, 1 / self._seen)
        self.mean_s += share * (seconds - self.mean_s)
