"""What the processes of a server count: one table in shared memory, a row for each of them, and the text of `/metrics`.

A process writes its own row only and reads them all, so nothing is locked and any process can answer for the
whole server. A row outlives its process: the one that takes its place counts on, so that sums never fall.
"""

import contextlib
import mmap
import resource
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from diffusion_art.streaming.wire import StreamInfo

PREFIX = "diffusion_art_stream"
FRESH_S = 5.0  # a process that has not shown itself for so long hangs

_PROTOCOLS = ("v1", "v2")
_BUCKETS = ("0.001", "0.005", "0.025", "0.1", "0.5", "2.5", "10", "+Inf")  # upper bounds, seconds


@dataclass(frozen=True)
class Family:
    """Figures of one name: one for each value of `label`, or a single one where there is none."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    label: str | None = None
    values: tuple[str, ...] = ("",)


FAMILIES = (
    Family("connections", "counter", "Clients that were let in.", "protocol", _PROTOCOLS),
    Family("connections_open", "gauge", "Clients that are connected.", "protocol", _PROTOCOLS),
    Family(
        "connections_refused",
        "counter",
        "Clients that were turned away at the door.",
        "reason",
        ("token", "origin", "path", "full", "protocol"),
    ),
    Family("requests", "counter", "Requests for samples.", "protocol", _PROTOCOLS),
    Family("requests_refused", "counter", "Requests that had no answer but an error.", "protocol", _PROTOCOLS),
    Family("samples", "counter", "Samples sent.", "protocol", _PROTOCOLS),
    Family("unreadable_samples", "counter", "Samples that could not be read from the shards."),
    Family("sent_bytes", "counter", "Bytes of the answers sent.", "protocol", _PROTOCOLS),
    Family("send_seconds", "counter", "Time in which answers went out or waited for their client to read."),
    Family("request_seconds", "histogram", "Time from a request's turn to the end of its answer.", "le", _BUCKETS),
    Family("remote_requests", "counter", "Requests to the store of shards that are read over a network."),
    Family("remote_bytes", "counter", "Bytes that came from it."),
    Family("remote_retries", "counter", "Requests to it that failed and were made again."),
    Family("remote_evicted_bytes", "counter", "Bytes of copies that left the cache for others."),
    Family("cpu_seconds", "counter", "Processor time of the server's processes."),
    Family("resident_bytes", "gauge", "Memory of the server's processes, shards in the page cache included."),
    Family("open_fds", "gauge", "Open file descriptors of the server's processes."),
    Family("process_starts", "counter", "Server processes started; more than there are: some died."),
)
SUM = "request_seconds_sum"
# Of a process and for the one that watches over it: when it last showed itself, connections it has ended.
_PRIVATE = ("seen", "ended")

_COLUMNS = {
    key: number
    for number, key in enumerate(
        [
            *((family.name, value) for family in FAMILIES for value in family.values),
            *((name, "") for name in (SUM, *_PRIVATE)),
        ]
    )
}
_GAUGES = [_COLUMNS[family.name, value] for family in FAMILIES if family.kind == "gauge" for value in family.values]
_BOUNDS = [float(bound) for bound in _BUCKETS]
_ROW_BYTES = 8 * len(_COLUMNS)


class Row:
    """The figures of one process, 64-bit floats: whole numbers are exact up to 2^53."""

    def __init__(self, values: Any) -> None:
        self._values = values  # a memoryview of floats, for which Python 3.11 has no word
        self._cpu_s = 0.0  # counted so far
        self._followed: dict[str, float] = {}

    def add(self, name: str, label: str = "", amount: float = 1) -> None:
        """Count."""
        self._values[_COLUMNS[name, label]] += amount

    def get(self, name: str, label: str = "") -> float:
        return self._values[_COLUMNS[name, label]]

    def observe_request(self, seconds: float) -> None:
        """A request took so long."""
        self.add("request_seconds", _BUCKETS[bisect_left(_BOUNDS, seconds)])
        self.add(SUM, amount=seconds)

    def begin(self) -> None:
        """This process is the row's from now on."""
        self.retire()
        self.add("process_starts")
        self.show()

    def show(self) -> None:
        """The process lives: note its processor time, memory and files."""
        cpu_s = time.process_time()
        self.add("cpu_seconds", amount=cpu_s - self._cpu_s)
        self._cpu_s = cpu_s
        self._set("resident_bytes", _resident_bytes())
        self._set("open_fds", _open_fds())
        self._set("seen", time.monotonic())

    def follow(self, totals: Mapping[str, float]) -> None:
        """Count what these totals, of this process alone, have grown by since the last call."""
        for name, total in totals.items():
            self.add(name, amount=total - self._followed.get(name, 0))
            self._followed[name] = total

    def retire(self) -> None:
        """The row's process has ended, and what it held with it."""
        for column in (*_GAUGES, *(_COLUMNS[name, ""] for name in _PRIVATE)):
            self._values[column] = 0.0

    @property
    def fresh(self) -> bool:
        """Whether its process has shown itself lately."""
        return self.get("seen") > time.monotonic() - FRESH_S

    def _set(self, name: str, value: float) -> None:
        self._values[_COLUMNS[name, ""]] = value


class Table:
    """`rows` of figures. A shared one lies in a file without a name, whose `descriptor` other processes inherit."""

    def __init__(self, rows: int, *, descriptor: int = -1) -> None:
        self._map = mmap.mmap(descriptor, rows * _ROW_BYTES)  # -1: memory of this process alone
        values = memoryview(self._map).cast("d")
        width = len(_COLUMNS)
        self.rows = [Row(values[width * i : width * (i + 1)]) for i in range(rows)]

    @staticmethod
    @contextlib.contextmanager
    def shared(rows: int) -> Iterator[tuple["Table", int]]:
        """A table for several processes, and its descriptor, open as long as the context."""
        with tempfile.TemporaryFile() as file:
            file.truncate(rows * _ROW_BYTES)
            yield Table(rows, descriptor=file.fileno()), file.fileno()

    def total(self, name: str, label: str = "") -> float:
        """Over all processes."""
        return sum(row.get(name, label) for row in self.rows)

    def family_total(self, name: str) -> float:
        """Over all processes and labels."""
        (family,) = (family for family in FAMILIES if family.name == name)
        return sum(self.total(name, value) for value in family.values)

    def totals(self) -> Iterator[tuple[Family, list[float]]]:
        """Every family with its figures, in the order of its values."""
        for family in FAMILIES:
            yield family, [self.total(family.name, value) for value in family.values]

    def processes(self) -> int:
        """Server processes that live and do not hang."""
        return sum(row.fresh for row in self.rows)


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * mmap.PAGESIZE
    except OSError:  # not Linux: the most it has been
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def _open_fds() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return sum(1 for _ in Path("/dev/fd").iterdir())


# ---------------------------------------------------------------------- as Prometheus reads them

Figures = dict[tuple[str, str], float]  # (name without prefix, value of its label or "") -> figure


class Exposition(Collector):
    """What `table` holds and a server of `info` is."""

    def __init__(self, table: Table, info: StreamInfo) -> None:
        self._table, self._info = table, info
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self, accept: str = "") -> tuple[str, str]:
        """The text, and its content type: OpenMetrics for those that `accept` it, else Prometheus' own."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry).decode(), content_type

    def collect(self) -> Iterator[Metric]:
        """Every metric, for the registry."""
        about = {"name": self._info.name, "digest": self._info.digest}
        yield InfoMetricFamily(f"{PREFIX}_data_set", "What is served.", value=about)
        sizes = GaugeMetricFamily(f"{PREFIX}_data_set_samples", "Samples of each split.", labels=["split"])
        for split, samples in self._info.splits.items():
            sizes.add_metric([split], samples)
        yield sizes
        processes = self._table.processes()
        yield GaugeMetricFamily(f"{PREFIX}_processes", "Server processes that answer.", value=processes)
        for family, figures in self._table.totals():
            name, labels = f"{PREFIX}_{family.name}", [family.label] if family.label else []
            if family.kind == "histogram":
                steps, reached = [], 0.0
                for bound, figure in zip(family.values, figures, strict=True):
                    reached += figure
                    steps.append((bound, reached))
                yield HistogramMetricFamily(name, family.help, buckets=steps, sum_value=self._table.total(SUM))
                continue
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = kind(name, family.help, labels=labels)
            for value, figure in zip(family.values, figures, strict=True):
                metric.add_metric([value] if labels else [], figure)
            yield metric


def read_metrics(text: str) -> tuple[Figures, dict[str, str]]:
    """The figures in a `/metrics` text, and what it says of the data set. ValueError when the text is not ours."""
    figures: Figures = {}
    about: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix(f"{PREFIX}_")
            if name == "data_set_info":
                about = dict(sample.labels)
            elif name != sample.name:
                figures[name, next(iter(sample.labels.values()), "")] = sample.value
    if not about:
        raise ValueError("these are not the metrics of a stream server")
    return figures, about
