"""Many consumers read one stream from several servers that die and come back.

Between events all rates are constant, so the simulation jumps from one event to the next: a server dies or is back, a
client dials, a window is full or empty. A server shares its capacity out among its clients, and a client takes no more
than its window has room for. Clients do what `StreamClient` does: they begin at a server by chance, keep the whole
frames that came, leave a server that broke off at once and one that fell silent after `timeout_s`, wait as `Patience`
does, go to another server and ask it for what follows their cursor. A server with `max_clients` sends the next one
away, as `stream limits.max_connections` does. No client leaves a server that serves it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from diffusion_art.streaming.client.line import Turns, delay_s

_SLACK = 1e-6  # samples: what rounding leaves of a window


@dataclass(frozen=True)
class Setting:
    """Servers of `capacity` samples/s each, and `consumers` of `rate` samples/s each."""

    servers: int
    capacity: float
    consumers: int = 512
    rate: float = 1500.0
    batch: int = 128  # samples of a request, and of its frame
    window: int = 4  # requests ahead
    hours: float = 24.0  # simulated
    mtbf_hours: float = 24.0  # of one server that is up
    restart_s: float = 60.0  # from a death until it serves again
    silent: float = 0.5  # share of deaths of which clients hear nothing; of the others they hear at once
    gone: int = 0  # servers that are down all the time
    max_clients: int | None = None  # of a server; None: all that come
    timeout_s: float = 30.0
    retry_for_s: float = 120.0
    seed: int = 0


@dataclass
class Outcome:
    """`waiting` is a share of the consumers' time; pairs are counted over what every consumer got."""

    waiting: float = 0.0
    deaths: int = 0
    ended: int = 0  # runs whose client waited for `retry_for_s`
    pairs: int = 0
    lost: int = 0
    repeated: int = 0


@dataclass
class Client:
    """Where one reader stands: `turns` names its server, `place` is its cursor, `got` the ranges that came whole."""

    turns: Turns
    place: int = 0
    failures: int = 0
    since: float = 0.0
    got: list[tuple[int, int]] = field(default_factory=list)


def lost_and_repeated(got: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Of ranges [start, stop) from 0 on: samples between them that are in none, samples that are in one more."""
    end = lost = repeated = 0
    for start, stop in sorted(got):
        lost += max(0, start - end)
        repeated += max(0, min(end, stop) - start)
        end = max(end, stop)
    return lost, repeated


class Simulation:
    """One run of a `Setting`: `Simulation(setting).run()`."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._chance = random.Random(setting.seed)
        self._limit = float(setting.batch * setting.window)
        servers = [str(number) for number in range(setting.servers)]
        self._clients = [Client(Turns(servers, self._chance)) for _ in range(setting.consumers)]
        self._at = np.array([int(client.turns.url) for client in self._clients])
        self._joined = np.zeros(setting.consumers, bool)
        self._ahead = np.zeros(setting.consumers)  # came and not consumed; below 0: consumed of a lost frame
        self._came = np.zeros(setting.consumers)  # since the client joined its server
        self._up, self._silent = [True] * setting.servers, [False] * setting.servers
        self._events: list[tuple[float, int, str, int]] = []
        self._numbers = count()
        self._now = 0.0
        self.outcome = Outcome()
        for server in range(setting.servers):
            self._after(self._lifetime(), "dies", server)
        for server in self._chance.sample(range(setting.servers), setting.gone):
            self._fall(server, for_ever=True)
        for number in range(setting.consumers):
            self._after(0.0, "dials", number)

    def run(self) -> Outcome:
        end, waited = 3600 * self.setting.hours, 0.0
        while self._now < end:
            while self._events and self._events[0][0] <= self._now:
                _, _, what, who = heapq.heappop(self._events)
                getattr(self, f"_{what}")(who)
            come, taken = self._rates()
            step = min(self._until_a_window_turns(come - taken), self._events[0][0] - self._now, end - self._now)
            self._ahead += (come - taken) * step
            self._ahead[np.abs(self._ahead) < _SLACK] = 0.0
            self._ahead[np.abs(self._ahead - self._limit) < _SLACK] = self._limit
            self._came += come * step
            waited += float((1 - taken / self.setting.rate).sum()) * step
            self._now += step
        self.outcome.waiting = waited / (end * self.setting.consumers)
        self._count()
        return self.outcome

    def _rates(self) -> tuple[np.ndarray, np.ndarray]:
        """Samples/s that come to each consumer, and that it takes."""
        setting, full = self.setting, self._ahead >= self._limit
        joined = np.bincount(self._at[self._joined], minlength=setting.servers)
        sated = np.bincount(self._at[self._joined & full], minlength=setting.servers)
        share = setting.capacity / np.maximum(joined, 1)
        rest = (setting.capacity - sated * setting.rate) / np.maximum(joined - sated, 1)
        fair, hungry = share[self._at], rest[self._at]
        come = np.where(fair < setting.rate, fair, np.where(full, setting.rate, hungry)) * self._joined
        from_window = np.where(self._ahead > 0, setting.rate, np.minimum(come, setting.rate))
        return come, np.where(self._ahead < 0, 0.0, from_window)

    def _until_a_window_turns(self, net: np.ndarray) -> float:
        """Seconds until the first window is full, empty or out of debt."""
        goal = np.where(net < 0, 0.0, np.where(self._ahead < 0, 0.0, self._limit))
        moves = (net != 0) & (np.abs(goal - self._ahead) >= _SLACK)
        return float(((goal - self._ahead)[moves] / net[moves]).min(initial=np.inf))

    def _after(self, seconds: float, what: str, who: int) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._numbers), what, who))

    def _lifetime(self) -> float:
        return self._chance.expovariate(1 / (3600 * self.setting.mtbf_hours))

    def _dies(self, server: int) -> None:
        if self._up[server]:
            self.outcome.deaths += 1
            self._fall(server)
            self._after(self.setting.restart_s, "back", server)

    def _fall(self, server: int, *, for_ever: bool = False) -> None:
        self._up[server] = False
        self._silent[server] = not for_ever and self._chance.random() < self.setting.silent
        for number in np.flatnonzero(self._joined & (self._at == server)).tolist():
            self._leave(number)
            self._after(self.setting.timeout_s if self._silent[server] else 0.0, "fails", number)

    def _back(self, server: int) -> None:
        self._up[server], self._silent[server] = True, False
        self._after(self._lifetime(), "dies", server)

    def _leave(self, number: int) -> None:
        """The frame under way is dropped; the cursor stands behind the last whole one."""
        client = self._clients[number]
        whole = int(self._came[number] + _SLACK) // self.setting.batch * self.setting.batch
        client.got.append((client.place, client.place + whole))
        client.place += whole
        self._ahead[number] -= self._came[number] - whole
        self._came[number] = 0.0
        self._joined[number] = False

    def _fails(self, number: int) -> None:
        client = self._clients[number]
        client.since = client.since if client.failures else self._now
        client.failures += 1
        if self._now - client.since >= self.setting.retry_for_s:
            self.outcome.ended += 1
            return
        client.turns.pass_on()
        self._after(delay_s(client.failures, self._chance), "dials", number)

    def _dials(self, number: int) -> None:
        client = self._clients[number]
        server = int(client.turns.url)
        if not self._up[server] or self._has_all_it_takes(server):
            self._after(self.setting.timeout_s if self._silent[server] else 0.0, "fails", number)
            return
        client.failures = 0
        self._at[number], self._joined[number] = server, True

    def _has_all_it_takes(self, server: int) -> bool:
        most = self.setting.max_clients
        return most is not None and int((self._joined & (self._at == server)).sum()) >= most

    def _count(self) -> None:
        for number in np.flatnonzero(self._joined).tolist():
            self._leave(number)
        for client in self._clients:
            lost, repeated = lost_and_repeated(client.got)
            self.outcome.lost += lost
            self.outcome.repeated += repeated
            self.outcome.pairs += client.place
