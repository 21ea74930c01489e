"""The figures of `/metrics`, for Prometheus: requests and their latency, pictures, the engine, the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from diffusion_art.serving.engine.jobs import EngineStats

PREFIX = "diffusion_art_serve"
_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """What one server counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        counter = partial(Counter, registry=self.registry)
        seconds = partial(Histogram, buckets=_SECONDS, registry=self.registry)
        told = "Answers, by route and status; 499: the client went first."
        self._requests = counter(f"{PREFIX}_requests", told, ["route", "status"])
        told = "Time from a request to the end of its answer."
        self._request_seconds = seconds(f"{PREFIX}_request_seconds", told, ["route"])
        told = "Time from a picture's order to its last step, waiting included."
        self._picture_seconds = seconds(f"{PREFIX}_picture_seconds", told, ["steps"])
        self._sent_bytes = counter(f"{PREFIX}_picture_bytes", "Size of the encoded pictures.", ["format"])
        ProcessCollector(namespace=PREFIX, registry=self.registry)
        PlatformCollector(registry=self.registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def painted(self, num_steps: int, seconds: float) -> None:
        """A picture of so many steps is done. Steps are counted in four classes, so that labels stay few."""
        self._picture_seconds.labels(next(name for most, name in _STEPS if num_steps <= most)).observe(seconds)

    def encoded(self, format: str, size: int) -> None:
        self._sent_bytes.labels(format).inc(size)

    def watch(self, stats: Callable[[], EngineStats], about: dict[str, str]) -> None:
        """Report an engine's figures too, asked for at each visit, and what is served."""
        self.registry.register(_EngineFigures(stats, about))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The text, and its content type: OpenMetrics for those that `accept` it, else Prometheus' own."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


_STEPS = ((5.0, "1-5"), (12.0, "6-12"), (25.0, "13-25"), (float("inf"), "26+"))


class _EngineFigures(Collector):
    """Gauges and counters of `EngineStats`."""

    def __init__(self, stats: Callable[[], EngineStats], about: dict[str, str]) -> None:
        self._stats, self._about = stats, about

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        rows = stats.rows + stats.rows_padded
        yield InfoMetricFamily(f"{PREFIX}_model", "What is served.", value=self._about)
        for name, text, value in (
            ("queue_pictures", "Pictures that wait for their first step.", stats.jobs_waiting),
            ("running_pictures", "Pictures on their way.", stats.jobs_running),
            ("step_seconds", "Recent mean time of a network call.", stats.tick_s),
            ("step_age_seconds", "Age of the network call under way; grows where it hangs.", stats.last_tick_age_s),
            ("batch_fill", "Share of all batch rows that were a picture's, not padding.", stats.rows / max(1, rows)),
            ("batch_rows", "Mean rows of a network call, without padding.", stats.rows / max(1, stats.ticks)),
            ("network_compiled", "1 once the compiled network is in use.", float(stats.compiled)),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)
        yield CounterMetricFamily(f"{PREFIX}_steps", "Network calls.", value=stats.ticks)
        yield CounterMetricFamily(f"{PREFIX}_painting_seconds", "Time in all network calls.", value=stats.painting_s)
        ends = CounterMetricFamily(f"{PREFIX}_pictures", "Pictures, by how they ended.", labels=["outcome"])
        for outcome in ("finished", "failed", "cancelled"):
            ends.add_metric([outcome], getattr(stats, outcome))
        yield ends
