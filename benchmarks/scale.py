"""Servers, network and money for many consumers of one stream, simulated with what was measured here and with faults.

    python benchmarks/scale.py [consumers=512] [rate=1500] [cores=4] [nic_gbit=10] [mtbf_hours=24] [hours=72] [...]

Measured, from `benchmarks/results/`: samples that a server sends per CPU second (`stream.json`), and the seconds in
which a server starts on a bucket of 10,000 shards (`remote.json`). The bytes of a pair are those of the frames of
shards, `path` or `pictures` paintings of 128 px. Latents are those of a VAE with factor 8 and 4 channels
(`docs/precompute.md`); a server is taken to send no more of them per CPU second than of JPEGs, which is not
measured.

Assumed, each an argument: `cores` and `nic_gbit` of a server, all cores at the rate of one; `server_price` of a
server, US$ an hour; `gb_price` of traffic, US$ a GB (0 within one zone of most clouds, 0.01 between two, more to
the internet); `mtbf_hours` between the failures of one server (24: much worse than a machine of one's own);
`boot_s` until another machine is there; `silent`, the share of failures after which a machine says nothing more, so
that its clients wait for 30 s.

`scale_sides/simulation.py` plays `hours` of it `seeds` times, each consumer with one connection, `window` requests
of `batch` pairs ahead. Every server has `limits.max_connections` set to the consumers that it has capacity for.
Bisection finds the fewest servers with which consumers wait for less than 0.5 % of their time in the worst of the
seeds, and no run ends.
"""

from __future__ import annotations

import inspect
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from record import RESULTS, below, command, figure, none, write
from scale_sides.simulation import Outcome, Setting, Simulation
from stream_sides.pictures import pictures as painted

from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.answer import frames, samples_at
from diffusion_art.streaming.client.readers import StreamClient
from diffusion_art.streaming.wire import Read

BUILD = Path(__file__).parents[1] / "build" / "scale"
WAITING = 0.005  # of the consumers' time
LATENTS = 24 + 2 * 4 * 16 * 16  # bytes: header, and bfloat16 of 4 channels of 16 x 16
TCP_SHARE = 1448 / 1538  # of a full Ethernet frame, preamble and gap included, that TCP carries


@dataclass(frozen=True)
class Market:
    """What was assumed of a server and of its price."""

    cores: float
    nic_gbit: float
    server_price: float
    gb_price: float


def measured(file: str, start: str) -> float:
    """The figure of the row that begins with `start`."""
    path = RESULTS / f"{file}.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    found = [row["ours"] for row in rows if row["measure"].startswith(start) and "ours" in row]
    if not found:
        raise SystemExit(f"{path.name} has no row {start!r}; run python benchmarks/{file}.py first")
    return found[0]


def pair_bytes(folder: Path, *, batch: int) -> tuple[float, float]:
    """Bytes of a pair in the frames of `folder`, and bytes of its picture in them."""
    shards = ShardSet.open(folder)
    read = Read(0, "train", 0, 0, 0, min(batch, shards.splits["train"]))
    samples = samples_at(shards, read)
    sent = sum(len(part) for frame in frames(shards, read, samples) for part in frame)
    _, _, images = shards.views("train", samples)
    return sent / read.stop, sum(len(image or b"") for image in images) / read.stop


def gbit_per_s(samples_per_s: float, size: float) -> float:
    """On the wire, for pairs of `size` bytes."""
    return 8e-9 * samples_per_s * size / TCP_SHARE


def capacity(market: Market, size: float, per_cpu_s: float) -> float:
    """Samples/s of one server: what its cores send, or what its network card carries."""
    return min(market.cores * per_cpu_s, market.nic_gbit / gbit_per_s(1.0, size))


def outcomes(setting: Setting, seeds: int) -> list[Outcome]:
    return [Simulation(replace(setting, seed=seed)).run() for seed in range(seeds)]


def holds(setting: Setting, seeds: int) -> bool:
    """Whether no run ends and consumers wait for less than WAITING, whatever the seed."""
    return all(not each.ended and each.waiting < WAITING for each in outcomes(setting, seeds))


def fewest(holds_with: Callable[[int], bool], *, at_least: int) -> int:
    """The smallest count from `at_least` on for which it holds, by bisection."""
    most = at_least
    while not holds_with(most):
        at_least, most = most + 1, 2 * most
    while at_least < most:
        middle = (at_least + most) // 2
        at_least, most = (at_least, middle) if holds_with(middle) else (middle + 1, most)
    return most


def gone_at_once(setting: Setting, seeds: int) -> int:
    """How many of the servers may be down from the start and for good."""
    calm = replace(setting, hours=0.5, mtbf_hours=1e9)
    return next(gone for gone in range(setting.servers) if not holds(replace(calm, gone=gone + 1), seeds))


def servers_of(setting: Setting, seeds: int) -> int:
    at_least = math.ceil(setting.consumers / (setting.max_clients or setting.consumers)) + setting.gone
    return fewest(lambda count: holds(replace(setting, servers=count), seeds), at_least=at_least)


def rows_of(name: str, size: float, setting: Setting, market: Market, seeds: int) -> list[dict[str, Any]]:
    """The lines of one payload; `setting` has as many servers as it happens to have."""
    setting = replace(setting, servers=servers_of(setting, seeds))
    spare = servers_of(replace(setting, gone=1), seeds)
    played, asked = outcomes(setting, seeds), setting.consumers * setting.rate
    piled = outcomes(replace(setting, max_clients=None), seeds)
    hours = 1e9 / asked / 3600
    broken = sum(each.lost + each.repeated for each in played)
    days = f"{seeds} x {setting.hours:g} h"
    return [
        figure(f"{name}: bytes of a pair on the way", size),
        figure(
            f"{name}: Gbit/s of {setting.consumers} consumers of {setting.rate:g} images/s", gbit_per_s(asked, size)
        ),
        figure(f"{name}: consumers that a server has capacity for, and takes", float(setting.max_clients or 0)),
        figure(f"{name}: servers", setting.servers),
        below(
            f"{name}: % of their time that consumers wait, worst of {seeds} seeds",
            100 * max(each.waiting for each in played),
            100 * WAITING,
            goal="< 0.5 %",
        ),
        figure(f"{name}: failures of a server survived in {days}", sum(each.deaths for each in played)),
        none(f"{name}: pairs lost or repeated of {sum(each.pairs for each in played) / 1e9:.0f} billion", broken),
        figure(f"{name}: servers that may be gone at once and for good", gone_at_once(setting, seeds)),
        figure(f"{name}: servers so that one may be", spare),
        figure(f"{name}: US$ of servers per billion pairs", hours * setting.servers * market.server_price),
        figure(f"{name}: US$ of traffic per billion pairs", size * market.gb_price),
        figure(
            f"{name}: % that they would wait if a server took all that come", 100 * max(each.waiting for each in piled)
        ),
    ]


def main(
    consumers: str = "512",
    rate: str = "1500",
    cores: str = "4",
    nic_gbit: str = "10",
    server_price: str = "0.2",
    gb_price: str = "0.01",
    mtbf_hours: str = "24",
    boot_s: str = "60",
    silent: str = "0.5",
    hours: str = "72",
    batch: str = "128",
    window: str = "4",
    seeds: str = "3",
    pictures: str = "256",
    path: str = "",
    results: str = str(RESULTS),
) -> None:
    given = {name: value for name, value in locals().items() if name != "results" and value}
    market = Market(float(cores), float(nic_gbit), float(server_price), float(gb_price))
    folder = Path(path) if path else painted(BUILD, count=int(pictures), size_px=128)
    pair, picture = pair_bytes(folder, batch=int(batch))
    client = inspect.signature(StreamClient).parameters
    common = Setting(
        servers=1,
        capacity=1.0,
        consumers=int(consumers),
        rate=float(rate),
        batch=int(batch),
        window=int(window),
        hours=float(hours),
        mtbf_hours=float(mtbf_hours),
        restart_s=float(boot_s) + measured("remote", "start of a server on a bucket"),
        silent=float(silent),
        timeout_s=client["timeout_s"].default,
        retry_for_s=client["retry_for_s"].default,
    )
    rows = []
    for name, size in (("JPEG", pair), ("latents", pair - picture + LATENTS)):
        each = capacity(market, size, measured("stream", "server alone, v2 jpeg"))
        if each < common.rate:
            raise SystemExit(f"a server sends {each:,.0f} samples/s, less than one consumer takes; give it more")
        rows += rows_of(
            name, size, replace(common, capacity=each, max_clients=int(each / common.rate)), market, int(seeds)
        )
    line = command("scale", **given)
    write("scale", [{**row, "command": line} for row in rows], results=Path(results))


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
