"""The figures of a server as Prometheus reads them, and back: the text of `/metrics`."""

from collections.abc import Iterator

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

from diffusion_art.streaming.server.metrics import PREFIX, SUM, Table
from diffusion_art.streaming.wire import StreamInfo

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
