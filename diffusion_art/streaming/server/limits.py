"""What a server allows its clients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.streaming.wire import MAX_COUNT, MAX_MESSAGE_BYTES

MAX_STRANGERS = 256  # connections of one process that are still in their opening handshake

_RANGES = {
    "max_connections": (1, 10**6),
    "max_message_bytes": (256, 2**30),
    "max_request_samples": (1, MAX_COUNT),
    "open_timeout_s": (0.1, 3600),
}


@dataclass(frozen=True)
class Limits:
    """What `conf/stream.yaml` says under `limits`; each has a range of its own. UserError outside of it."""

    max_connections: int = 1024
    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_request_samples: int = MAX_COUNT
    open_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (least, most) = getattr(self, field.name), _RANGES[field.name]
            whole = field.type is int
            kinds = int if whole else int | float
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
                number = "whole number" if whole else "number"
                raise UserError(f"limits.{field.name}={value!r} is not a {number} from {least} to {most:,}")

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> "Limits":
        """What a config asks for, which reads 1e3 as 1000.0."""
        floats = {name: value for name, value in asked.items() if isinstance(value, float) and value.is_integer()}
        return cls(**{**asked, **{name: int(value) for name, value in floats.items()}})


class Entrance:
    """The connections that have not said what they want. Too many of them, and the oldest is shown out.

    A client of ours is through in milliseconds, so the oldest one is a port scanner or holds its socket open to
    keep others from theirs; `open_timeout_s` ends these too, and this bounds their number until then.
    """

    def __init__(self, most: int = MAX_STRANGERS) -> None:
        self._most = most
        self._waiting: dict[object, Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, who: object, show_out: Callable[[], None]) -> None:
        """`who` has come in; `show_out` is what ends it."""
        if len(self._waiting) >= self._most:
            oldest = next(iter(self._waiting))
            self._waiting.pop(oldest)()
        self._waiting[who] = show_out

    def leave(self, who: object) -> None:
        """Forget `who`: it has been let in, or has left."""
        self._waiting.pop(who, None)
