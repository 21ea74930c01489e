"""What slow and many clients cost the others: one that stops reading for a minute, 64 that come and go for two.

    python benchmarks/stream_reliability.py [stopped_s=60] [soak_s=120] [pictures=8192]

Three clients read the shuffled stream as fast as the server sends, first alone, then beside one that has asked for
all it may and reads nothing, then alone again when that one has taken what it was owed. Then 64 clients read, leave
in one way or another and come again, and the server's memory and descriptors are looked at all the while.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import threading
import time
from itertools import count
from pathlib import Path

import psutil
from record import claim, command, figure, machine, write
from stream_sides.pictures import pictures as painted
from stream_sides.raw import BINARY, RawClient
from stream_sides.running import BENCHMARKS
from stream_sides.server_alone import answers_v2
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.wire import SUBPROTOCOL, Hello, Read, pack_message

READERS, CLIENTS = 3, 64
SLEEPER_ASKS = 48  # requests of 512 samples: some 200 MB that the server must not pile up


class Readers:
    """Clients that read as fast as they can, in threads, until stopped."""

    def __init__(self, url: str, samples: int) -> None:
        self._taken = [0] * READERS
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(url, samples, n)) for n in range(READERS)]
        for thread in self._threads:
            thread.start()

    def _read(self, url: str, samples: int, number: int) -> None:
        answers = answers_v2(url, samples)
        while not self._stop.is_set():
            self._taken[number] += next(answers)

    def rate(self, seconds: float) -> float:
        """Samples/s of all of them together over the next `seconds`."""
        before, began = sum(self._taken), time.perf_counter()
        time.sleep(seconds)
        return (sum(self._taken) - before) / (time.perf_counter() - began)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def one_stopped(folder: Path, seconds: float) -> tuple[float, float, float]:
    """The readers' rates beside a client that does not read, and without it; MB the server grew by meanwhile."""
    samples = ShardSet.open(folder).splits["train"]
    with ServerProcess(folder) as server:
        readers = Readers(server.url, samples)
        try:
            readers.rate(2)
            before = readers.rate(max(2.0, seconds / 3))
            memory = memory_mb(server.pid)
            sleeper = RawClient(server.url, SUBPROTOCOL)
            sleeper.send(pack_message(Hello()))
            sleeper.receive()
            for number in range(SLEEPER_ASKS):
                sleeper.send(pack_message(Read(number, "train", 1, number, 0, min(512, samples))))
            during = readers.rate(seconds)
            grown = memory_mb(server.pid) - memory
            owed = SLEEPER_ASKS * min(512, samples)
            while owed:
                kind, head, _ = sleeper.receive()
                if kind != BINARY:
                    raise SystemExit(f"the server says {head!r}")
                owed -= int.from_bytes(head[12:16], "little")
            sleeper.close()
            after = readers.rate(max(2.0, seconds / 3))
        finally:
            readers.stop()
    return during, (before + after) / 2, grown


class Crowd:
    """Clients that read some answers of 16 samples, leave with or without a word, and come again."""

    def __init__(self, url: str, samples: int) -> None:
        self._url, self._samples = url, samples
        self.waits_s: list[float] = []
        self.visits = 0

    async def run(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        await asyncio.gather(*(self._client(number, ends) for number in range(CLIENTS)))

    async def _client(self, number: int, ends: float) -> None:
        chance = random.Random(number)
        offer = [Subprotocol(SUBPROTOCOL)]
        for visit in count():
            if time.monotonic() > ends:
                return
            self.visits += 1
            async with connect(self._url, subprotocols=offer, compression=None, proxy=None, max_size=None) as line:
                await line.send(pack_message(Hello()))
                await line.recv()
                for k in range(chance.randrange(10, 200)):
                    start = chance.randrange(self._samples - 16)
                    began = time.perf_counter()
                    await line.send(pack_message(Read(k, "train", number, visit, start, start + 16)))
                    if chance.random() < 0.01:
                        break  # with an answer on its way
                    await line.recv()
                    self.waits_s.append(time.perf_counter() - began)
                if chance.random() < 0.3:
                    line.transport.abort()


def soak(folder: Path, seconds: float) -> tuple[Crowd, list[float], list[int]]:
    """The crowd, and the server's memory (MB) and open descriptors ten times over the `seconds`, the first aside."""
    samples = ShardSet.open(folder).splits["train"]
    with ServerProcess(folder) as server:
        crowd, memory, files = Crowd(server.url, samples), [], []
        pid = server.pid
        for _ in range(10):
            asyncio.run(crowd.run(seconds / 10))
            time.sleep(0.5)  # descriptors of those who left without a word
            memory.append(memory_mb(pid))
            files.append(sum(process.num_fds() for process in family(pid)))
        if server.pid != pid:
            raise SystemExit("the server was replaced")
    return crowd, memory[1:], files[1:]


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def memory_mb(pid: int) -> float:
    """Private memory: the mapped shards, which are the page cache's, aside."""
    return sum(process.memory_full_info().uss for process in family(pid)) / 1e6


def main(stopped_s: str = "60", soak_s: str = "120", pictures: str = "8192") -> None:
    folder = painted(BENCHMARKS.parent / "build" / "stream", count=int(pictures), size_px=128)
    given = {"stopped_s": stopped_s, "soak_s": soak_s, "pictures": pictures}
    more = {**machine(), "command": command("stream_reliability", **given)}
    during, alone, grown = one_stopped(folder, float(stopped_s))
    crowd, memory, files = soak(folder, float(soak_s))
    ratio, growth = during / alone, statistics.median(memory[-3:]) / statistics.median(memory[:3])
    rows = [
        claim(
            f"samples/s of three clients while a fourth does not read for {stopped_s} s",
            ours=during,
            peer=alone,
            peer_name="the three alone, before and after",
            ratio=ratio,
            goal=">= 0.95",
            holds=ratio >= 0.95,
            **more,
        ),
        figure("MB the server grew by meanwhile", grown, **more),
        claim(
            f"server MB at the end of {soak_s} s with {CLIENTS} clients that come and go",
            ours=statistics.median(memory[-3:]),
            peer=statistics.median(memory[:3]),
            peer_name="its first third",
            ratio=growth,
            goal="<= 1.05",
            holds=growth <= 1.05,
            **more,
        ),
        claim(
            "descriptors of the server, no client there any more",
            ours=files[-1],
            peer=files[0],
            peer_name="after the first crowd",
            ratio=files[-1] / files[0],
            goal="<= 1",
            holds=files[-1] <= files[0],
            **more,
        ),
        figure("visits", crowd.visits, **more),
        figure("ms for 16 samples, median", 1000 * statistics.median(crowd.waits_s), **more),
        figure("ms for 16 samples, 99 of 100", 1000 * statistics.quantiles(crowd.waits_s, n=100)[98], **more),
    ]
    write("stream_reliability", rows)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
