"""The forms in which pictures travel to a training, by their words on the wire: `jpeg`, as they are stored, and `u8`.

A new one is an entry here: how its bytes become a picture, and who makes them. Batches are the same in every form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusion_art.errors import UserError
from diffusion_art.shards.mixture import Shards
from diffusion_art.shards.pixels import Buffer, copy_into, decode_into


@dataclass(frozen=True)
class Payload:
    """`unpack(data, out)` writes a picture into a row of a batch [s, s, 3], uint8; BadPicture where it cannot.

    `make(shards, cache=..., progress=...)` gives every `ShardSet` of `shards` the form (`ShardSet.forms`), kept in the
    folder `cache`; None for the form that is stored.
    """

    unpack: Callable[[Buffer, np.ndarray], None]
    make: Callable[..., None] | None = None


def _decoded(shards: Shards, *, cache: str | Path | None, progress: bool) -> None:
    from diffusion_art.shards.predecode import predecode  # loads what a server can otherwise do without

    predecode(shards, cache=cache, progress=progress)


PAYLOADS = {
    "jpeg": Payload(decode_into),
    "u8": Payload(copy_into, _decoded),
}


def is_made(name: str) -> bool:
    """Whether pictures do not lie in this form, so that somebody has to make it."""
    return PAYLOADS[name].make is not None


def give(shards: Shards, name: str, *, cache: str | Path | None = None, progress: bool = True) -> None:
    """Let `shards` give their pictures in this form too.

    Raises:
        UserError: no room for it in `cache`, or no leave to write there; or pictures of several sizes.
    """
    if (make := PAYLOADS[name].make) is not None:
        if shards.buckets:
            raise UserError(
                f"{shards.name} holds pictures in buckets, which travel as they are stored: set data.payload=jpeg, or "
                "start the server without decode=true"
            )
        make(shards, cache=cache, progress=progress)
