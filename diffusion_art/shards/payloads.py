"""The forms in which pictures travel to a training, by their words on the wire: `jpeg`, as they are stored, `u8`, and
`latents` of an encoder, whose digest follows the word.

A new one is an entry here: how its bytes become a row of a batch, and who makes them. Batches are the same in every
form; of latents within bf16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusion_art.shards.mixture import Shards
from diffusion_art.shards.pixels import BadPicture, Buffer, copy_into, decode_into
from diffusion_art.shards.side_files import LATENTS, BadRecord, read_record


@dataclass(frozen=True)
class Payload:
    """`unpack(data, out)` writes a picture into a row of a batch [h, w, 3], uint8; BadPicture where it cannot.

    `make(shards, cache=..., progress=...)` gives every `ShardSet` of `shards` the form (`ShardSet.forms`), kept in the
    folder `cache`; None for a form that is stored, beside the pictures or in their place. Rows of a batch that
    is `encoded` hold the numbers of a record (side_files.py) in place of pixels.
    """

    unpack: Callable[[Buffer, np.ndarray], None]
    make: Callable[..., None] | None = None
    encoded: bool = False


def _decoded(shards: Shards, *, cache: str | Path | None, progress: bool) -> None:
    from diffusion_art.shards.predecode import predecode  # loads what a server can otherwise do without

    predecode(shards, cache=cache, progress=progress)


def _recorded(data: Buffer, out: np.ndarray) -> None:
    try:
        record = read_record(data)
    except BadRecord as error:
        raise BadPicture(str(error)) from error
    channels, height, width, _ = record.shape
    if (channels, height, 2 * width) != out.shape or len(record.payload) != out.nbytes:
        raise BadPicture(
            f"it has {len(record.payload)} bytes of latents {channels} x {height} x {width}, where {out.nbytes} of "
            f"{out.shape[0]} x {out.shape[1]} x {out.shape[2] // 2} are wanted"
        )
    out[...] = np.frombuffer(record.payload, np.uint8).reshape(out.shape)


PAYLOADS = {
    "jpeg": Payload(decode_into),
    "u8": Payload(copy_into, _decoded),
    LATENTS: Payload(_recorded, encoded=True),
}


def payload_of(codec: str) -> Payload:
    """That of a codec as it is called on the wire, whatever travels before it."""
    return PAYLOADS[codec.partition("+")[0].partition(":")[0]]


def is_made(codec: str) -> bool:
    """Whether pictures do not lie in this form, so that somebody has to make it."""
    return payload_of(codec).make is not None


def give(shards: Shards, codec: str, *, cache: str | Path | None = None, progress: bool = True) -> None:
    """Let `shards` give their pictures in this form too.

    Raises:
        UserError: no room for it in `cache`, or no leave to write there.
    """
    if (make := payload_of(codec).make) is not None:
        make(shards, cache=cache, progress=progress)
