"""What every sampler is: a word, settings, a grid of times; its two kinds, `Tabular` and `Loop`; and its noise.

Noise belongs to one image, not to its batch: each image has a seed and a CPU generator of its own. So row 7 of a batch
is the same picture alone, in any batch, in a grid and over HTTP, and on a GPU it starts from the same numbers as on a
CPU.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.denoiser import AnyDenoiser, DenoiserAtOneTime, rows_at
from diffusion_art.diffusion.samplers.table import (
    NO_NOISE,
    Call,
    Callback,
    Noise,
    Step,
    check_spacing,
    check_times,
    follow,
    steps_of,
    time_grid,
)
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError

SEED_LIMIT = 2**32  # torch's CPU generator reads the low 32 bits only: larger seeds would repeat smaller ones
ASKED_LIMIT = 2**64  # other programs draw seeds up to here, and their users paste them
SAMPLERS: dict[str, type[Sampler]] = {}  # word -> class; a class that has a `name` enters itself


@dataclass(frozen=True)
class Sampler(ABC):
    """A sampler with its settings: what `conf/sampler/` fills.

    `num_steps` is the number of steps down the grid, one network call each unless the class says otherwise. `times`,
    from 1 down to 0, are the grid itself, as `diffusion_art.schedule_search` finds it; `num_steps` is then theirs, and
    `spacing` means nothing.

    `name` is the word for it over HTTP and in metadata, `title` its name in AUTOMATIC1111's web UI.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    num_steps: int = 50
    spacing: str = "uniform"
    times: Sequence[float] | None = None

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "name" in vars(cls):
            SAMPLERS[cls.name] = cls

    def __post_init__(self) -> None:
        if not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise UserError(f"num_steps must be a whole number from 1 on, not {self.num_steps}; try num_steps=20")
        check_spacing(self.spacing)
        if self.times is not None:
            object.__setattr__(self, "times", check_times(self.times))  # a tuple, since samplers are keys of tables
            object.__setattr__(self, "num_steps", len(self.times) - 1)

    def describe(self) -> dict[str, Any]:
        """The settings as plain data, for a picture's metadata and `by_name`; `times` only where they were given."""
        settings = {"name": self.name, **asdict(self)}
        times = settings.pop("times")
        return settings if times is None else settings | {"times": list(times)}

    def in_steps(self, num_steps: int) -> Sampler:
        """The same sampler in another number of steps; a grid of its own is then given up for its spacing."""
        return self if num_steps == self.num_steps else replace(self, num_steps=num_steps, times=None)

    def grid(self, schedule: Schedule) -> Float[Tensor, " n1"]:
        """The times it stops at under `schedule`, float64, from 1 down to 0."""
        if self.times is not None:
            return torch.tensor(self.times, dtype=torch.float64)
        return time_grid(schedule, self.num_steps, spacing=self.spacing)

    @abstractmethod
    def num_calls(self, schedule: Schedule) -> int:
        """How often it calls the network for a picture; where that depends on the picture, the most."""

    @torch.no_grad()
    def sample(
        self,
        denoiser: AnyDenoiser,
        x_T: Float[Tensor, "b c h w"],
        *,
        times: Float[Tensor, " n1"] | None = None,
        noise: Noise | None = None,
        callback: Callback | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """From unit noise x_T to x_0; or from the first of `times` to the last, wherever they begin and end.

        `noise` is needed by those that draw any. `callback(step_index, t, x_t, x_0_hat)` is called once a step.

        Raises:
            ValueError: `times` that do not fall, or noise is needed and not given.
        """
        schedule = denoiser.schedule
        steps = list(steps_of(schedule, self.grid(schedule) if times is None else times))
        return self._through(steps, denoiser, x_T, noise, callback)

    @abstractmethod
    def _through(
        self, steps: Sequence[Step], denoiser: AnyDenoiser, x: Tensor, noise: Noise | None, callback: Callback | None
    ) -> Tensor:
        """From x at the start of the first step to x at the end of the last."""


class Tabular(Sampler):
    """A sampler whose steps are linear maps. It gives `table`; all else follows."""

    @abstractmethod
    def table(self, steps: Iterable[Step]) -> Iterator[Call]:
        """The network calls of these steps, in order, each with the numbers of its map (`table.py`)."""

    def calls(self, schedule: Schedule) -> list[Call]:
        """The network calls of sampling under `schedule`, from t = 1 to t = 0."""
        return list(self.table(steps_of(schedule, self.grid(schedule))))

    def num_calls(self, schedule: Schedule) -> int:
        return len(self.calls(schedule))

    def _through(
        self, steps: Sequence[Step], denoiser: AnyDenoiser, x: Tensor, noise: Noise | None, callback: Callback | None
    ) -> Tensor:
        return follow(self.table(steps), denoiser, x, noise=noise, callback=callback)


class Ask(NamedTuple):
    """What a loop wants to know: x_0_hat of `x` at time `t`. `corrects` marks a second call within a step."""

    step_index: int
    t: float
    x: Tensor
    corrects: bool = False


Walk = Generator[Ask, Tensor, Tensor]  # yields what it asks, is sent x_0_hat, returns x_0


class Loop(Sampler):
    """A sampler that is no table: its steps may look at the picture, or go back up in noise. It gives `walk`.

    `x_0_hat = yield Ask(...)` calls the network: by `sample` for a whole batch, by the server for one picture.
    """

    @abstractmethod
    def walk(self, schedule: Schedule, steps: Sequence[Step], x: Float[Tensor, "b c h w"], noise: Noise) -> Walk:
        """From x at the start of the first step to x at the end of the last."""

    def begin(self, schedule: Schedule, x_T: Float[Tensor, "b c h w"], noise: Noise) -> Walk:
        """The walk from t = 1 to t = 0."""
        return self.walk(schedule, list(steps_of(schedule, self.grid(schedule))), x_T, noise)

    def _through(
        self, steps: Sequence[Step], denoiser: AnyDenoiser, x: Tensor, noise: Noise | None, callback: Callback | None
    ) -> Tensor:
        walk = self.walk(denoiser.schedule, steps, x, noise or _no_noise)
        at_one_time = denoiser if isinstance(denoiser, DenoiserAtOneTime) else None
        x_0_hat: Any = None  # which begins the walk
        while True:
            try:
                ask = walk.send(x_0_hat)
            except StopIteration as end:
                return end.value
            x_0_hat = at_one_time.at(ask.x, ask.t) if at_one_time else denoiser(ask.x, rows_at(ask.t, ask.x))
            if callback is not None and not ask.corrects:
                callback(ask.step_index, ask.t, ask.x, x_0_hat)


def by_name(name: str, **settings: Any) -> Sampler:
    """The sampler of that word: what HTTP, metadata and configs of older checkpoints hold.

    Raises:
        UserError: no such word, or a setting that this sampler does not have.
    """
    if name not in SAMPLERS:
        raise UserError(f"no sampler named {name!r}; choose one of {', '.join(SAMPLERS)}")
    known = [field.name for field in fields(SAMPLERS[name])]
    if settings.get("eta") == 0 and "eta" not in known:
        del settings["eta"]  # older pictures tell DDIM's eta for every sampler
    for key, value in settings.items():
        if key not in known:
            raise UserError(f"sampler {name} has no {key} (got {value}), so drop it; it has {', '.join(known)}")
    return SAMPLERS[name](**settings)


def _no_noise(step_index: int) -> Tensor:
    raise ValueError(NO_NOISE)


# ---------------------------------------------------------------------- noise


def seeds_from(first: int | None, count: int) -> list[int]:
    """`count` seeds that count up from the low 32 bits of `first`, which are all that matter; from any for None or -1.

    UserError for another one outside [0, 2^64).
    """
    if first is None or first == -1:
        first = secrets.randbelow(2**31)
    if not 0 <= first < ASKED_LIMIT:
        raise UserError(f"seed {first} is out of range; choose one from 0 to {ASKED_LIMIT - 1}, or -1 for any")
    return [(first + number) % SEED_LIMIT for number in range(count)]


def per_image_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One seeded CPU generator per image. UserError for a seed outside [0, 2^32)."""
    for seed in seeds:
        if not 0 <= seed < SEED_LIMIT:
            raise UserError(f"seed {seed} is out of range; choose one from 0 to {SEED_LIMIT - 1}")
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def unit_noise(generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Float[Tensor, "b c h w"]:
    """The next N(0, 1) image of `shape` (c, h, w) from each generator, float32 on the CPU.

    The numbers equal those of diffusers' `randn_tensor` with a list of generators.
    """
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


class NoiseSource:
    """All the noise that sampling one batch of images needs, a pure function of (seeds, step_index).

    Image i's generator gives first its x_T, then the fresh noise of step 0, 1, ...; a step asked for again,
    or out of order, is found by drawing from the start.
    """

    def __init__(
        self, seeds: Sequence[int], shape: tuple[int, int, int], *, device: torch.device | str = "cpu"
    ) -> None:
        self.seeds = list(seeds)
        self.shape = shape
        self.device = torch.device(device)
        self._rewind()

    def x_T(self) -> Float[Tensor, "b c h w"]:
        """The pure noise that sampling starts from."""
        return self._draw(0)

    def __call__(self, step_index: int) -> Float[Tensor, "b c h w"]:
        """The fresh noise of a stochastic sampler's step."""
        return self._draw(step_index + 1)

    def _rewind(self) -> None:
        self._generators = per_image_generators(self.seeds)
        self._drawn = 0

    def _draw(self, number: int) -> Tensor:
        if number < self._drawn:
            self._rewind()
        while self._drawn < number:
            unit_noise(self._generators, self.shape)
            self._drawn += 1
        self._drawn += 1
        return unit_noise(self._generators, self.shape).to(self.device)
