"""What frozen networks said before, on its way into a batch: latents in place of pixels, states beside captions, and
what an image tower saw beside pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.shards.pixels import BadPicture, Buffer
from diffusion_art.shards.side_files import FEATURES, TEXT, BadRecord, Record, read_record
from diffusion_art.tensors import Conditioning

CALLED = {TEXT: "text states", FEATURES: "image features"}
PLAIN = "data.payload=jpeg data.text_states=false data.image_features=false"  # a run that asks for none of it


@dataclass(frozen=True)
class Wanted:
    """What of a run's data was computed before: the `codec` by which it is asked for on the wire (side_files.py), and
    the shape (c h w) of a square's `latents`, None for pictures. `command` makes what is missing.
    """

    codec: str
    latents: tuple[int, int, int] | None
    command: str

    @property
    def remedy(self) -> str:
        """For an error where shards have no such thing."""
        return (
            f"these encoders have not been asked yet. Make what they say with `{self.command}`, or train with {PLAIN}"
        )


class ToldFirst:
    """Takes text states and features off the front of each sample, where the codec has them there."""

    def __init__(self, codec: str) -> None:
        self._kept: dict[str, list[Record]] = {name.partition(":")[0]: [] for name in codec.split("+")[1:]}
        self._last: list[Record] = []

    def rest(self, data: Buffer) -> Buffer:
        """The bytes behind them. BadPicture where these are damaged."""
        start, self._last = 0, []
        for kind in self._kept:
            try:
                self._last.append(read_record(data, start))
            except BadRecord as error:
                raise BadPicture(f"its {CALLED[kind]} cannot be read: {error}") from error
            start += self._last[-1].bytes
        return memoryview(data)[start:] if start else data

    def keep(self) -> None:
        """The sample is used."""
        for kept, record in zip(self._kept.values(), self._last, strict=True):
            kept.append(record)

    def states(self) -> Conditioning | None:
        """Of the samples that were kept, where there are any."""
        return batched(found) if (found := self._kept.get(TEXT)) else None

    def features(self) -> Float[Tensor, "b d g g"] | None:
        """Of the samples that were kept, in bfloat16, where there are any."""
        return stacked(found) if (found := self._kept.get(FEATURES)) else None


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


def stacked(features: Sequence[Record]) -> Float[Tensor, "b d g g"]:
    """The maps of a batch in bfloat16."""
    payload = bytearray(b"".join(record.payload for record in features))
    return torch.frombuffer(payload, dtype=torch.bfloat16).view(len(features), *features[0].shape[:3])
