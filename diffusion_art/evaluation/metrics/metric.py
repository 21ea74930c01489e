"""What a metric is, and how metrics are chosen by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from diffusion_art.config import build
from diffusion_art.errors import UserError
from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.features import Features
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.reference import check_there
from diffusion_art.evaluation.subject import Subject
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.units import counted


@dataclass(frozen=True)
class Figure:
    """One number of a metric's result, as tables and curves show it."""

    key: str  # its place in the result
    label: str
    better: str  # higher | lower | neither
    error: str | None = None  # the place of its error bar
    percent: bool = False  # a share from 0 to 1

    def value(self, result: Mapping[str, Any]) -> float | None:
        return None if result.get(self.key) is None else float(result[self.key])

    def bar(self, result: Mapping[str, Any]) -> float | None:
        return None if self.error is None or result.get(self.error) is None else float(result[self.error])

    def told(self, result: Mapping[str, Any]) -> str:
        """`93.3 %` or `0.0123 +- 0.0004`."""
        value, bar = self.value(result), self.bar(result)
        if value is None:
            return "none"
        scale, unit = (100, " %") if self.percent else (1, "")
        digits = f"{value * scale:.1f}" if self.percent else f"{value:.4g}"
        return f"{digits}{unit}" if bar is None else f"{digits} +- {bar * scale:.2g}{unit}"


class Metric(ABC):
    """Measures a `Subject`. The docstring's first sentence says in a report what the figures mean."""

    figures: ClassVar[tuple[Figure, ...]]
    against: ClassVar[str | None] = None  # the pictures of a `Subject` that it compares with: real | kept
    own_pictures: int = 0  # those that it paints beside the ones of real captions, which metrics share
    sliced: ClassVar[tuple[int, Figure] | None] = None  # fewest pictures of a slice, and what `of_rows` gives

    def check(self, networks: Networks) -> None:  # noqa: B027 -- most have nothing to check
        """UserError where its settings make no sense; said before the model is loaded."""

    def check_data(self, data: RunData, networks: Networks) -> None:  # noqa: B027 -- some compare with no pictures
        """UserError where a run's data hold too few pictures for it; said before anything is painted."""

    def refusal(self, subject: Subject) -> str | None:
        """Why this model cannot be measured so, if it cannot: `caption_following asks for ...`."""
        return None

    def check_model(self, model: Callable[[], TextToImage]) -> None:  # noqa: B027 -- most take any, and read none
        """UserError where it says nothing of the model that is read so; said before anything is painted."""

    @abstractmethod
    def measure(self, subject: Subject) -> dict[str, Any]:
        """The result, ready for json."""

    def of_rows(self, subject: Subject, rows: Sequence[int]) -> float:
        """The figure of some of the pictures, for a metric that is `sliced`."""
        raise NotImplementedError

    def count(self, result: Mapping[str, Any]) -> int | None:
        """How many pictures are behind a result."""
        return result.get("pictures")

    def summary(self, result: Mapping[str, Any]) -> str:
        """`kid 0.01234 +- 0.0012 (efficientnet_lite0, 1024 pictures)` in one line."""
        told = ", ".join(f"{figure.label} {figure.told(result)}" for figure in self.figures)
        return f"{told}{self.about(result)}"

    def about(self, result: Mapping[str, Any]) -> str:
        """` (efficientnet_lite0, 1,024 pictures)`: figures with another ending cannot be compared."""
        told = [str(result["features"])] if "features" in result else []
        told += [counted(count)] if (count := self.count(result)) is not None else []
        return f" ({', '.join(told)})" if told else ""

    @classmethod
    def says(cls) -> str:
        """The first sentence of its docstring."""
        first = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
        return first if first.endswith(".") else f"{first}."


@dataclass(kw_only=True, eq=False)
class AgainstReal(Metric):
    """Compares `pictures` painted ones, as a network sees them, with as many that a run is measured against."""

    against = "real"
    pictures: int = 1024

    @abstractmethod
    def network(self, networks: Networks) -> Features:
        """The network that looks at them."""

    def check(self, networks: Networks) -> None:
        self.network(networks)

    def check_data(self, data: RunData, networks: Networks) -> None:
        check_there(data.real(), self.pictures)

    def sides(self, subject: Subject) -> tuple[Tensor, Tensor]:
        """The features of the real pictures and of the painted ones, n d each."""
        network = self.network(subject.networks)
        return subject.real_features(network, self.pictures), subject.painted_features(network, self.pictures)


@dataclass(kw_only=True, eq=False)
class InFeatures(AgainstReal):
    """Compares both sides in the `features` of a network."""

    features: str = "efficientnet_lite0"

    def network(self, networks: Networks) -> Features:
        return networks.features(self.features)


def metrics_of(nodes: Mapping[str, Any], names: Sequence[str]) -> dict[str, Metric]:
    """The metrics of these names, built from their config nodes, in the order of `names`.

    Raises:
        UserError: no node of that name, or a node that builds something else.
    """
    if unknown := [name for name in names if name not in nodes]:
        raise UserError(f"metrics={unknown} is unknown: choose from {', '.join(nodes)}.")
    found = {name: build(nodes[name]) for name in dict.fromkeys(names)}
    for name, metric in found.items():
        if not isinstance(metric, Metric):
            raise UserError(f"metric.{name} builds a {type(metric).__name__}, which is no metric.")
    return found


def at_least(least: int, **given: int) -> None:
    """UserError for a value below `least`, by the name it is given under."""
    for name, value in given.items():
        if value < least:
            raise UserError(f"{name}={value} is too small: give at least {least}.")
