"""How long to go on trying: what every reader does between one failure and the next."""

import random
import time
from collections.abc import Sequence

from diffusion_art.errors import UserError
from diffusion_art.streaming.client.line import LineError

jitter = random.SystemRandom()  # leaves the global generator, which training may use, alone


def delay_s(failures: int, chance: random.Random = jitter) -> float:
    """The wait after so many failures in a row: about 0.1 s, then twice as long each time, up to 2 s."""
    return min(2.0, 0.05 * 2 ** min(failures, 10)) * chance.uniform(0.5, 1.5)


class Turns:
    """The servers at `urls` one after the other, in an order of one reader's own.

    So readers spread over the servers, and those of a server that is gone over all others.
    """

    def __init__(self, urls: Sequence[str], chance: random.Random = jitter) -> None:
        self._order, self._passed = chance.sample(list(urls), len(urls)), 0

    @property
    def url(self) -> str:
        """Whose turn it is."""
        return self._order[self._passed % len(self._order)]

    def pass_on(self) -> None:
        """It is the next one's turn."""
        self._passed += 1


class Patience:
    """Waits longer after each failure in a row, and raises UserError when they go on for `limit_s`."""

    def __init__(self, limit_s: float, what: str) -> None:
        self._limit_s, self._what = limit_s, what
        self._failures, self._since = 0, 0.0

    def left_s(self) -> float:
        """How long failures may still go on."""
        return self._limit_s - (time.monotonic() - self._since if self._failures else 0.0)

    def rewarded(self) -> None:
        """Something came: failures count from none again."""
        self._failures = 0

    def failed(self, error: LineError) -> None:
        """Wait before the next try."""
        if self._failures == 0:
            self._since = time.monotonic()
        self._failures += 1
        if self.left_s() <= 0:
            raise UserError(f"{self._what} (waited {self._limit_s:g} s, at last: {error})") from None
        time.sleep(max(0.0, min(delay_s(self._failures), self.left_s())))
