"""How shards are served, and what a server allows its clients.

Settings are the same for each process of a server, and travel to it as JSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.net import Tls, token_of
from diffusion_art.shards.mixture import Shards, open_shards
from diffusion_art.shards.places import Component
from diffusion_art.streaming.wire import MAX_COUNT, MAX_MESSAGE_BYTES

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
        for each in fields(self):
            value, (least, most) = getattr(self, each.name), _RANGES[each.name]
            whole = each.type is int
            kinds = int if whole else int | float
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
                number = "whole number" if whole else "number"
                raise UserError(f"limits.{each.name}={value!r} is not a {number} from {least} to {most:,}")

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> "Limits":
        """What a config asks for, which reads 1e3 as 1000.0."""
        floats = {name: value for name, value in asked.items() if isinstance(value, float) and value.is_integer()}
        return cls(**{**asked, **{name: int(value) for name, value in floats.items()}})


@dataclass(frozen=True)
class Settings:
    """`token`: what clients must know. `tls`: None for a server without encryption.

    `decode` adds the forms that are made of the stored one, kept in the folder `cache` (pixels.py). EIR clients share
    one stream of the training split, shuffled under `eir_seed`, that ends after `eir_epochs` (None: never); `eir_state`
    is the file by which several processes, or a server and the one that replaces it, share its state (None: this
    process alone). `copy_ahead`: shards at an address that all fit into their cache are copied from the start on, and
    not when clients ask for them.
    """

    token: str | None = None
    tls: Tls | None = None
    limits: Limits = field(default_factory=Limits)
    decode: bool = False
    cache: str | None = None
    eir_seed: int = 0
    eir_epochs: int | None = None
    eir_state: str | None = None
    copy_ahead: bool = False

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> "Settings":
        """What `conf/stream.yaml` says. UserError for half a certificate, a limit out of its range, or a `cache` for
        nothing.
        """
        if asked["cache"] is not None and not asked["decode"]:
            raise UserError(f"cache={asked['cache']} is for decoded pictures: give decode=true too, or leave it out.")
        return cls(
            token=token_of(asked["token"]),
            tls=Tls.of(asked["tls"]["certificate"], asked["tls"]["key"]),
            limits=Limits.of(asked["limits"]),
            decode=asked["decode"],
            cache=asked["cache"],
            eir_seed=asked["eir"]["seed"],
            eir_epochs=asked["eir"]["epochs"],
            eir_state=asked["eir"]["state"],
            copy_ahead=asked["copy_ahead"],
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> "Settings":
        """What `to_json` wrote."""
        content: dict[str, Any] = json.loads(text)
        tls = content.pop("tls")
        limits = Limits(**content.pop("limits"))
        return cls(**content, limits=limits, tls=tls and Tls(**tls))

    def open(self, components: Sequence[Component], *, progress: bool = False) -> Shards:
        """The shards, with the codecs they are to be served in. UserError as from `open_shards` and `give`."""
        shards = open_shards(components)
        if self.decode:
            from diffusion_art.shards.pixels import PAYLOADS, give  # loads what a server can otherwise do without

            for name in PAYLOADS:
                give(shards, name, cache=self.cache, progress=progress)
        return shards

    @property
    def scheme(self) -> str:
        """Of the addresses its clients use."""
        return "ws" if self.tls is None else "wss"
