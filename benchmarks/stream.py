"""How fast the stream is: ours over a socket, other libraries from local disk, the server alone.

    python benchmarks/stream.py [rounds=5] [seconds=3] [quick=true] [pictures=8192] [path=SHARDS] [peers=false]
    python benchmarks/stream.py before=COMMIT [rounds=5] [seconds=3]  # our own sides alone, against an earlier commit

Every side is a fresh process that delivers the same pictures (painted at 128 px, JPEGs of about 9 kB, in 16 tars) as
the same batches: 128 shuffled pictures, as in EIR's tutorial, in one uint8 tensor of shape (128, 3, 128, 128), and
their captions. Ours runs its server on the same cores. First the best of 0, 1 and 2 loader workers is found for each
side, ours too; then all sides run one after the other in each round, in an order that turns. A ratio is the median
over the rounds of the ratio within a round; the rates are medians. Calibrators run in the same rounds: what the bare
decoder, the loopback and the memory of this machine do.

Decoding a picture costs more than all the rest, for v1 as for v2, and no client can be faster than the bare decoder:
what the protocols themselves cost shows where nothing is decoded.

`quick=true` takes a minute or two, leaves out all libraries but webdataset, and prints without recording.

The libraries are read as their manuals show, and once more with our decoder (simplejpeg) lent to them. Each is
installed into an environment of its own under build/, with the project's torch.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from record import claim, command, figure, machine, missing, write
from since import lay_out
from stream_peers.environments import peers as libraries
from stream_peers.environments import python_of
from stream_sides.pictures import pictures as painted
from stream_sides.running import BENCHMARKS, Side, SideError, run

from diffusion_art.shards.reader import ShardSet

BUILD = BENCHMARKS.parent / "build" / "stream"
BATCH = 128
WEBDATASET = "webdataset"
OTHERS = ("litdata", "mosaicml-streaming", "datasets")
LENT = " + simplejpeg"
EIR = "EIR's streamer, re-created"


def calibrators(folder: str, cores: int) -> list[Side]:
    module, given = "stream_sides.calibrators", {"folder": folder}
    return [
        Side("bare JPEG decode, 1 core, samples/s", module, {**given, "what": "decode", "cores": 1}),
        Side(f"bare JPEG decode, {cores} cores, samples/s", module, {**given, "what": "decode", "cores": cores}),
        Side("TCP over loopback, GB/s", module, {**given, "what": "loopback"}),
        Side("memcpy, GB/s", module, {**given, "what": "memcpy"}),
    ]


def servers(folder: str) -> list[Side]:
    """Servers alone, and both ends of a protocol without the decoding."""
    return [
        *(
            Side(f"server alone, {name}", "stream_sides.server_alone", {"folder": folder, "protocol": protocol})
            for name, protocol in (("v1", "v1"), ("v2 jpeg", "v2"))
        ),
        *(
            Side(
                f"{name}, not decoded",
                "stream_sides.received",
                {"folder": folder, "protocol": protocol, "batch": BATCH},
            )
            for name, protocol, _ in KINDS
            if protocol != "v2" or name == "v2 jpeg"
        ),
    ]


def eir_streamer(shards: Path) -> Side:
    """EIR's streamer on the same pictures, in the environment of `datasets`, which it reads them with."""
    python, folder = library("datasets", shards)
    given = {"folder": str(folder), "protocol": "v1", "eir": python}
    return Side(EIR, "stream_sides.server_alone", given)


KINDS = (  # name, protocol, codec
    ("v2 jpeg", "v2", "jpeg"),
    ("v2 u8", "v2", "u8"),
    ("v1, our client", "v1", "jpeg"),
    ("v1, a plain client", "v1 plain", "jpeg"),
)


def delivered(folder: str) -> list[Side]:
    return [
        Side(
            name,
            "stream_sides.delivered",
            {"folder": folder, "protocol": protocol, "codec": codec, "batch": BATCH},
            workers=2,
        )
        for name, protocol, codec in KINDS
    ]


def library(name: str, shards: Path) -> tuple[str, Path]:
    """A Python that has library `name`, and the pictures in its format. RuntimeError or SideError without them."""
    out = BUILD / f"{shards.name}-{name}"
    python = str(python_of(name, BUILD / "environments"))
    if not (out / "done").exists():
        print(f"converting the pictures for {name}", flush=True)
        convert(python, name, shards, out)
    return python, out


def peer_sides(shards: Path, size_px: int, problems: dict[str, str], *, quick: bool) -> list[Side]:
    """The libraries that install, each with its own decoder and with ours, their formats written where missing."""
    found = {WEBDATASET: (sys.executable, shards)}
    for name in () if quick else libraries():
        try:
            found[name] = library(name, shards)
        except (RuntimeError, SideError) as error:
            problems[name] = str(error)
    return [
        Side(
            name + ("" if decoder == "own" else LENT),
            "stream_peers.run_peer",
            {"name": name, "folder": str(folder), "decoder": decoder, "batch": BATCH, "size_px": size_px},
            python=python,
            workers=2,
        )
        for name, (python, folder) in found.items()
        for decoder in ("own", "simplejpeg")
    ]


def convert(python: str, name: str, shards: Path, out: Path) -> None:
    """Write the pictures in the format of library `name`, once."""
    shutil.rmtree(out, ignore_errors=True)
    run(python, "stream_peers.convert", {"name": name, "shards": str(shards), "out": str(out)}, limit_s=1800)
    (out / "done").touch()


def choose_workers(sides: list[Side], problems: dict[str, str], seconds: float) -> list[Side]:
    """Those of `sides` that work, each with the number of loader workers (0, 1, 2) it is fastest with."""
    working = []
    for side in sides:
        tried = {}
        for side.workers in (0, 1, 2):
            try:
                tried[side.workers] = side.run(seconds=seconds, warm_s=1.0)
            except SideError as error:
                problems[side.name] = str(error)
        if tried:
            side.workers = max(tried, key=lambda workers: tried[workers])
            problems.pop(side.name, None)
            working.append(side)
            print(f"{side.name}: " + ", ".join(f"{rate:,.0f}/s with {w} workers" for w, rate in tried.items()))
    return working


def play(sides: list[Side], problems: dict[str, str], *, rounds: int, seconds: float) -> dict[str, Side]:
    """Run all `sides` in each of `rounds`; those that never fail, by name."""
    for number in range(rounds):
        turned = sides[number % len(sides) :] + sides[: number % len(sides)]
        for side in turned if number % 2 == 0 else turned[::-1]:
            if side.name in problems:
                continue
            timing = {"seconds": seconds} | ({} if side.workers is None else {"warm_s": 1.0})
            try:
                side.rates.append(side.run(**timing))
            except SideError as error:
                problems[side.name] = str(error)
        latest = [f"{side.name} {side.rates[-1]:,.4g}" for side in sides if side.name not in problems]
        print(f"round {number + 1}: " + ", ".join(latest), flush=True)
    return {side.name: side for side in sides if side.name not in problems}


class Judge:
    """Makes the rows: `rates` are those of each side, round by round."""

    def __init__(self, played: dict[str, Side], problems: dict[str, str], line: str) -> None:
        self.played, self.problems = played, problems
        self.more = {**machine(), "command": line}
        self.rows: list[dict] = []

    def best(self, names: list[str]) -> str | None:
        """Whose median is highest, of those that ran."""
        ran = [name for name in names if name in self.played]
        return max(ran, key=lambda name: statistics.median(self.played[name].rates), default=None)

    def compare(self, measure: str, ours: str, theirs: list[str], goal: float, *, scale: float = 1.0) -> None:
        """A row for side `ours` against the best of `theirs`, whose rates count `scale` times."""
        peer = self.best(theirs)
        for absent in [ours] * (ours not in self.played) + theirs * (peer is None):
            self.rows.append(missing(f"{measure}: {absent}", self.problems.get(absent, "not part of this run")))
        if ours not in self.played or peer is None:
            return
        one, other = self.played[ours].rates, [scale * rate for rate in self.played[peer].rates]
        ratios = [mine / its for mine, its in zip(one, other, strict=True)]
        ratio = statistics.median(ratios)
        row = claim(
            measure,
            ours=statistics.median(one),
            peer=statistics.median(other),
            peer_name=peer,
            ratio=ratio,
            goal=f">= {goal:g}",
            holds=ratio >= goal,
            ratios=[round(each, 3) for each in ratios],
            workers={name: self.played[name].workers for name in (ours, peer)},
            **self.more,
        )
        self.rows.append(row)


def judge(played: dict[str, Side], problems: dict[str, str], cores: int, line: str) -> list[dict]:
    """A row for each line of the table of goals, then the figures behind them."""
    made = Judge(played, problems, line)
    for lent, how in (("", ""), (LENT, ", our decoder lent to it")):
        others = [name + lent for name in OTHERS]
        for ours, goals in (("v2 jpeg", (3, 1.5)), ("v2 u8", (4, 4))):
            made.compare(f"decoded samples/s, {ours}{how}", ours, [WEBDATASET + lent], goals[0])
            made.compare(f"decoded samples/s, {ours}{how}", ours, others, goals[1])
    made.compare("server alone, v1, samples per CPU second", "server alone, v1", [EIR], 30)
    made.compare("server alone, v2 jpeg, samples per CPU second", "server alone, v2 jpeg", [EIR], 200)
    for client in ("v1, our client", "v1, a plain client"):
        made.compare("decoded samples/s, v2 jpeg against v1", "v2 jpeg", [client], 4)
    for client in ("v1, our client, not decoded", "v1, a plain client, not decoded"):
        made.compare("samples per CPU second of both ends, not decoded", "v2 jpeg, not decoded", [client], 4)
    one, every = (side.name for side in calibrators("", cores)[:2])
    made.compare(f"efficiency: v2 jpeg against {cores} x the bare decoder", "v2 jpeg", [one], 0.80, scale=cores)
    made.compare(f"efficiency: v2 jpeg against the bare decoder on {cores} cores at once", "v2 jpeg", [every], 0.80)
    for side in played.values():
        workers = "" if side.workers is None else f", {side.workers} workers"
        rates = {"rates": [round(rate, 3) for rate in side.rates]}
        made.rows.append(figure(side.name + workers, statistics.median(side.rates), **rates, **made.more))
    return made.rows


def against_before(shards: Path, commit: str, *, rounds: int, seconds: float) -> None:
    """Our sides and the same of `commit`, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        tree = lay_out(commit, Path(folder) / "tree")
        ours = delivered(str(shards)) + servers(str(shards))
        sides = [
            side
            for each in ours
            for side in (each, replace(each, name=f"{each.name} at {commit}", tree=tree, rates=[]))
        ]
        problems: dict[str, str] = {}
        played = play(sides, problems, rounds=rounds, seconds=seconds)
    made = Judge(played, problems, command("stream", before=commit, rounds=rounds, seconds=seconds))
    for side in ours:
        made.compare(f"{side.name}, samples/s", side.name, [f"{side.name} at {commit}"], 0.98)
    write("stream_before", made.rows)


def main(
    rounds: str = "5",
    seconds: str = "3",
    quick: str = "false",
    pictures: str = "8192",
    path: str = "",
    peers: str = "true",
    before: str = "",
) -> None:
    short = quick.lower() == "true"
    if short:
        rounds, seconds = min(rounds, "3"), "1"
    shards = Path(path).resolve() if path else painted(BUILD, count=int(pictures), size_px=128)
    if before:
        against_before(shards, before, rounds=int(rounds), seconds=float(seconds))
        return
    stored = ShardSet.open(shards)
    problems: dict[str, str] = {}
    sides = delivered(str(shards))
    if peers.lower() == "true":
        sides += peer_sides(shards, stored.image_size_px, problems, quick=short)
    cores = machine()["cores"]
    sides = choose_workers(sides, problems, seconds=min(1.5, float(seconds)))
    sides += servers(str(shards)) + calibrators(str(shards), cores)
    if not short:
        try:
            sides.append(eir_streamer(shards))
        except (RuntimeError, SideError) as error:
            problems[EIR] = str(error)
    played = play(sides, problems, rounds=int(rounds), seconds=float(seconds))
    given = {"rounds": rounds, "seconds": seconds, "pictures": pictures}
    given |= {"quick": "true"} if short else {}
    given |= {"path": path} if path else {}
    given |= {} if peers.lower() == "true" else {"peers": "false"}
    rows = judge(played, problems, cores, command("stream", **given))
    if not short:
        write("stream", rows)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
