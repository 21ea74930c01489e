"""What frozen encoders said before, on its way into a batch: latents in place of pixels, states beside captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diffusion_art.data.transforms import to_float
from diffusion_art.shards.pixels import BadPicture, Buffer
from diffusion_art.shards.side_files import BadRecord, Record, read_record
from diffusion_art.tensors import Batch, Conditioning


@dataclass(frozen=True)
class Wanted:
    """What of a run's data was computed before: the `codec` by which it is asked for on the wire (side_files.py), and
    the shape (c h w) of `latents`, None for pictures. `command` makes what is missing.
    """

    codec: str
    latents: tuple[int, int, int] | None
    command: str

    @property
    def remedy(self) -> str:
        """For an error where shards have no such thing."""
        return (
            f"these encoders have not been asked yet. Make what they say with `{self.command}`, or train with "
            "data.payload=jpeg data.text_states=false"
        )


class ToldFirst:
    """Takes the text states off the front of each sample, where the codec has them there."""

    def __init__(self, codec: str) -> None:
        self._here = "+" in codec
        self._last: Record | None = None
        self.states: list[Record] = []  # of the samples that were kept

    def rest(self, data: Buffer) -> Buffer:
        """The bytes behind the states. BadPicture where these are damaged."""
        if not self._here:
            return data
        try:
            self._last = read_record(data)
        except BadRecord as error:
            raise BadPicture(f"its text states cannot be read: {error}") from error
        return memoryview(data)[self._last.bytes :]

    def keep(self) -> None:
        """The sample is used."""
        if self._last is not None:
            self.states.append(self._last)


def batched(states: Sequence[Record]) -> Conditioning:
    """The conditioning of a batch in bfloat16, padded as an encoder pads it."""
    _, width, pooled, context = states[0].shape
    lengths = [record.shape[0] for record in states]
    length = min(context, -(-max(lengths) // 8) * 8)
    tokens = torch.zeros(len(states), length, width, dtype=torch.bfloat16)
    vectors = torch.empty(len(states), pooled, dtype=torch.bfloat16)
    for row, (record, count) in enumerate(zip(states, lengths)):
        numbers = torch.frombuffer(bytearray(record.payload), dtype=torch.bfloat16)
        tokens[row, :count] = numbers[: count * width].view(count, width)
        vectors[row] = numbers[count * width :]
    mask = torch.arange(length)[None, :] < torch.tensor(lengths)[:, None]
    return Conditioning(tokens, mask, vectors)


def on_device(batch: Batch) -> Batch:
    """A batch from a loader as a step takes it: pictures in [-1, 1], or latents and states in float32."""
    images = latents_of(batch.images) if batch.encoded else to_float(batch.images)
    return replace(batch, images=images, cond=batch.cond and batch.cond.to(torch.float32))


def latents_of(rows: UInt8[Tensor, "b c h w2"]) -> Float[Tensor, "b c h w"]:
    """From the bytes of bfloat16."""
    return rows.contiguous().view(torch.bfloat16).float()
