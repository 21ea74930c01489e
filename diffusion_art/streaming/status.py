"""What stream servers are doing, as a table: `python -m diffusion_art.stream --status ws://host:8000/ws ...`.

Read from their `/metrics`, twice for the rates; with several server processes the figures are of all of them.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from urllib.parse import SplitResult, urlsplit

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from diffusion_art.errors import UserError
from diffusion_art.net import TOKEN_VARIABLE, client_context, headers_of
from diffusion_art.streaming.client.line import one_line
from diffusion_art.streaming.server.metrics import Figures, read_metrics

_TIMEOUT_S = 5.0
_LOOK_S = 0.1  # how often a pause looks for Ctrl-C


@dataclass(frozen=True)
class Reading:
    """The figures of one server at one moment; `about` is its data set, `trouble` why there are none."""

    at: float
    figures: Figures
    about: dict[str, str]
    trouble: str = ""

    def get(self, name: str, label: str = "") -> float:
        return self.figures.get((name, label), 0.0)

    def sum(self, name: str) -> float:
        """Over all labels."""
        return sum(figure for (found, _), figure in self.figures.items() if found == name)


class Scraper:
    """Reads the metrics of the server at `url`, an address of its stream. UserError for an address that is none."""

    def __init__(self, url: str, *, token: str | None, ca: str | None) -> None:
        self.url = url
        parts = _parts_of(url)
        scheme = "http" if parts.scheme == "ws" else "https"
        above = parts.path.rstrip("/").removesuffix("/ws").rstrip("/")  # what a proxy puts before it
        self._request = urllib.request.Request(f"{scheme}://{parts.netloc}{above}/metrics", headers=headers_of(token))
        context = client_context(ca) if scheme == "https" else None
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def __call__(self) -> Reading:
        """How the server is now; never an error, but a Reading that says what the trouble is."""
        trouble = ""
        try:
            with self._opener.open(self._request, timeout=_TIMEOUT_S) as response:
                figures, about = read_metrics(response.read().decode())
            return Reading(time.monotonic(), figures, about)
        except urllib.error.HTTPError as error:
            error.close()
            trouble = "wants its token: --token, or $" + TOKEN_VARIABLE if error.code == 401 else str(error)
        except urllib.error.URLError as error:
            trouble = f"no answer ({getattr(error.reason, 'strerror', None) or error.reason})"
        except (OSError, ValueError, HTTPException) as error:
            trouble = f"no answer ({one_line(error)})"
        return Reading(time.monotonic(), {}, {}, trouble)


def _parts_of(url: str) -> SplitResult:
    """What the address of a stream is made of. UserError for one that is none."""
    with contextlib.suppress(ValueError):  # a port that is not a number, or too large, a bracket that is not closed
        parts = urlsplit(url)
        if parts.scheme in ("ws", "wss") and parts.netloc and parts.port != 0:
            return parts
    raise UserError(f"{url!r} is no stream address; one looks like ws://host:8000/ws")


def quantile(earlier: Reading, later: Reading, q: float) -> float | None:
    """The time in seconds within which a share `q` of the requests between two readings was answered.

    Interpolated linearly within its bucket, as Prometheus' histogram_quantile does; None without a request.
    """
    name = "request_seconds_bucket"
    bounds = sorted((float(bound), bound) for found, bound in later.figures if found == name)
    counts = [later.get(name, bound) - earlier.get(name, bound) for _, bound in bounds]
    if not counts or counts[-1] <= 0:
        return None
    wanted, lower, below = q * counts[-1], 0.0, 0.0
    for (upper, _), count in zip(bounds, counts, strict=True):
        if count >= wanted:
            if upper == float("inf"):
                return lower
            return lower + (upper - lower) * (wanted - below) / max(count - below, 1e-9)
        lower, below = upper, count
    return lower


def draw(urls: Sequence[str], earlier: Sequence[Reading], later: Sequence[Reading]) -> Table:
    """One row a server: rates of the time between two readings, troubles since its start."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("server", overflow="fold")
    table.add_column("data set")
    columns = ("processes", "clients", "samples/s", "MB/s", "p50/p99 ms", "cores", "RSS MB")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("trouble")
    for url, before, now in zip(urls, earlier, later, strict=True):
        if now.trouble:
            table.add_row(Text(url), "", *[""] * len(columns), Text(now.trouble, style="red"))
        else:
            table.add_row(Text(url), Text(now.about.get("name", "")), *_cells(before, now))
    return table


def _cells(before: Reading, now: Reading) -> list[str]:
    seconds = max(now.at - before.at, 1e-9)

    def rate(name: str) -> float:
        return max(0.0, now.sum(name) - before.sum(name)) / seconds if before.figures else 0.0

    latencies = [quantile(before, now, q) for q in (0.5, 0.99)]
    troubles = {
        "refused": now.sum("connections_refused_total") + now.sum("requests_refused_total"),
        "unreadable": now.sum("unreadable_samples_total"),
        "store retries": now.sum("remote_retries_total"),
        "restarts": now.sum("process_starts_total") - now.get("processes"),
    }
    return [
        f"{now.get('processes'):.0f}",
        f"{now.sum('connections_open'):,.0f}",
        f"{rate('samples_total'):,.0f}",
        f"{rate('sent_bytes_total') / 1e6:,.1f}",
        "/".join("-" if latency is None else f"{1000 * latency:,.1f}" for latency in latencies),
        f"{rate('cpu_seconds_total'):.2f}",
        f"{now.sum('resident_bytes') / 1e6:,.0f}",
        ", ".join(f"{number:,.0f} {name}" for name, number in troubles.items() if number > 0),
    ]


def show(
    urls: Sequence[str], *, token: str | None, ca: str | None, once: bool, every_s: float, console: Console
) -> bool:
    """Print the table once, or draw it anew every `every_s` until Ctrl-C; whether all servers answered.

    Where nobody's terminal is, it is printed each time, below the last one.
    """
    scrapers = [Scraper(url, token=token, ca=ca) for url in urls]
    with _pauses() as pause, ThreadPoolExecutor(len(scrapers)) as pool:

        def read() -> list[Reading]:
            return list(pool.map(lambda scrape: scrape(), scrapers))

        earlier = read()
        if once:
            if pause(every_s):
                return True
            later = read()
            console.print(draw(urls, earlier, later))
            return not any(reading.trouble for reading in later)
        later = earlier
        if not console.is_terminal:  # a pipe or a file: one table below the other
            while not pause(every_s):
                earlier, later = later, read()
                console.print(draw(urls, earlier, later))
            return True
        with Live(draw(urls, earlier, later), console=console, auto_refresh=False) as live:
            while not pause(every_s):
                earlier, later = later, read()
                live.update(draw(urls, earlier, later), refresh=True)
        return True


@contextlib.contextmanager
def _pauses() -> Iterator[Callable[[float], bool]]:
    """Gives `pause(seconds)`, which waits, and says whether Ctrl-C came, then or before. Ctrl-C interrupts nothing
    else: within a pool of threads an interrupt can leave locks held, and the end waits for these for ever.
    """
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))

    def pause(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not came and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_S))
        return bool(came)

    try:
        yield pause
    finally:
        signal.signal(signal.SIGINT, before)


def main(arguments: Sequence[str]) -> int:
    """The command line; its exit status: 1 when `--once` found a server that does not answer."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_art.stream", description="What stream servers do.")
    parser.add_argument("--status", nargs="+", required=True, metavar="URL", help="addresses of streams, ws://...")
    parser.add_argument("--once", action="store_true", help="print one table, of the rates within --every seconds")
    parser.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between two looks")
    parser.add_argument("--token", default=os.environ.get(TOKEN_VARIABLE), help=f"or in ${TOKEN_VARIABLE}")
    parser.add_argument("--ca", help="certificates to trust, PEM")
    options = parser.parse_args(arguments)
    if not options.every > 0:
        raise UserError(f"--every {options.every:g} is no time between two looks; give seconds above 0")
    answered = show(
        options.status,
        token=options.token,
        ca=options.ca,
        once=options.once,
        every_s=options.every,
        console=Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120),
    )
    return 0 if answered else 1
