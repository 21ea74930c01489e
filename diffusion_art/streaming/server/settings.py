"""How shards are served: what is the same for each process of a server, and travels to it as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from diffusion_art.net import Tls, token_of
from diffusion_art.shards.mixture import Component, Shards, open_shards
from diffusion_art.streaming.server.limits import Limits


@dataclass(frozen=True)
class Settings:
    """`token`: what clients must know. `tls`: None for a server without encryption.

    `decode` adds the forms that are made of the stored one, kept in the folder `cache` (payloads.py). EIR clients share
    one stream of the training split, shuffled under `eir_seed`, that ends after `eir_epochs` (None: never); `eir_state`
    is the file by which several processes, or a server and the one that replaces it, share its state (None: this
    process alone).
    """

    token: str | None = None
    tls: Tls | None = None
    limits: Limits = field(default_factory=Limits)
    decode: bool = False
    cache: str | None = None
    eir_seed: int = 0
    eir_epochs: int | None = None
    eir_state: str | None = None

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> "Settings":
        """What `conf/stream.yaml` says. UserError for half a certificate, or a limit out of its range."""
        return cls(
            token=token_of(asked["token"]),
            tls=Tls.of(asked["tls"]["certificate"], asked["tls"]["key"]),
            limits=Limits.of(asked["limits"]),
            decode=asked["decode"],
            cache=asked["cache"],
            eir_seed=asked["eir"]["seed"],
            eir_epochs=asked["eir"]["epochs"],
            eir_state=asked["eir"]["state"],
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
            from diffusion_art.shards.payloads import PAYLOADS, give  # loads what a server can otherwise do without

            for name in PAYLOADS:
                give(shards, name, cache=self.cache, progress=progress)
        return shards

    @property
    def scheme(self) -> str:
        """Of the addresses its clients use."""
        return "ws" if self.tls is None else "wss"
