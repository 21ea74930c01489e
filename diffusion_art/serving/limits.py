"""How much anybody may ask for, and how fast."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields

from diffusion_art.errors import UserError
from diffusion_art.serving.api.errors import too_many

SIZES = ("any", "exact")
_UNREAD = ("/v1/images/edits", "/v1/images/variations")  # refused for what they are; nobody reads their bodies
_LEAST = {"rate_per_minute": 1.0, "max_body_bytes": 1024, "max_predict_body_bytes": 1024}


@dataclass(frozen=True)
class Limits:
    """What `conf/serve.yaml` says under `limits`. UserError for a number that would let nothing in."""

    max_body_bytes: int = 262_144
    max_predict_body_bytes: int = 4_194_304
    max_prompt_chars: int = 4000
    max_n: int = 10
    sizes: str = "any"
    max_size_px: int = 2048
    max_pixels: int = 20_971_520
    max_captions: int = 32
    max_steps: int = 200
    rate_per_minute: float | None = 240.0
    max_connections: int = 512
    header_timeout_s: float = 10.0
    body_timeout_s: float = 20.0
    write_timeout_s: float = 30.0
    keep_alive_s: float = 15.0
    file_lifetime_s: float = 3600.0
    max_file_bytes: int = 67_108_864

    def __post_init__(self) -> None:
        if self.sizes not in SIZES:
            raise UserError(f"limits.sizes={self.sizes} must be one of {', '.join(SIZES)}")
        for field in fields(self):
            if field.name == "sizes":
                continue
            value, least = getattr(self, field.name), _LEAST.get(field.name, 1 if field.type == "int" else 0.01)
            if value is None and field.name == "rate_per_minute":
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least:
                raise UserError(
                    f"limits.{field.name}={value} must be at least {least:g}; its default is {field.default}"
                )

    def max_body_at(self, path: str) -> int:
        """Bytes that a request to `path` may bring."""
        if path.rstrip("/") in _UNREAD:
            return 1 << 40
        return self.max_predict_body_bytes if path == "/predict" else self.max_body_bytes


class Rates:
    """A token bucket for each customer: `per_minute` pictures a minute, and as many at once after a pause."""

    def __init__(
        self, per_minute: float | None, *, remembered: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_minute = per_minute
        self.remembered = remembered
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # customer -> (pictures left, when)

    def take(self, customer: str | None, pictures: int) -> None:
        """Count so many pictures for a customer; None is nobody in particular, and has no limit.

        Raises:
            ApiError: 429, with the time until they would be granted.
        """
        if customer is None or self.per_minute is None:
            return
        now = self._clock()
        left, when = self._buckets.pop(customer, (self.per_minute, now))
        left = min(self.per_minute, left + (now - when) * self.per_minute / 60)
        granted = left >= min(pictures, self.per_minute)  # one larger than the bucket takes it whole
        self._buckets[customer] = (left - pictures if granted else left, now)
        if len(self._buckets) > self.remembered:
            self._buckets.popitem(last=False)
        if not granted:
            wait_s = (min(pictures, self.per_minute) - left) * 60 / self.per_minute
            raise too_many(
                f"This token may ask for {self.per_minute:g} pictures a minute; come back in {wait_s:.0f} s.",
                code="rate_limit_exceeded",
                retry_after_s=wait_s,
            )

    def give_back(self, customer: str | None, pictures: int) -> None:
        """Count so many pictures of a customer as not asked for: they were granted, and not taken on."""
        if customer in self._buckets and self.per_minute is not None:
            left, when = self._buckets[customer]
            self._buckets[customer] = (min(self.per_minute, left + pictures), when)
