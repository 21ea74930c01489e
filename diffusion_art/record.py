"""What a checkpoint of ours holds beside Lightning's part: one record, under `diffusion_art`, written and read here."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_art.errors import UserError

KEY = "diffusion_art"
FORMAT = 1
TRAIN_ONE = "Train one: python -m diffusion_art.train +experiment=quickstart"

Weights = dict[str, Tensor]  # by the names of the model's parameters


@dataclass(kw_only=True)
class Record:
    """All that is needed to paint, and to go on averaging. The raw weights are in Lightning's part.

    None stands for what was not written: by a version before it was kept, or since it means nothing there.
    """

    config: dict[str, Any]  # the resolved run config, plain dicts and lists
    ema: Weights  # the averaged trainable weights that are used
    ema_name: str | None = None  # what that average is called, such as decay_0.9999
    ema_updates: int | None = None  # updates in it
    averages: dict[str, Weights] | None = None  # further ones by what they are called, such as sigma_rel_0.05
    step: int  # optimiser updates
    text_encoder: dict[str, Any] | None = None  # what `TextEncoder.describe` said
    codec: dict[str, Any] | None = None  # what `Codec.describe` said, with the `weights` that it `kept`
    versions: dict[str, Any] | None = None  # of the libraries
    commit: str | None = None
    more: dict[str, Any] = field(default_factory=dict)  # what terms of the loss keep, and the like

    def plain(self) -> dict[str, Any]:
        """As it is written: `format`, and what is known."""
        own = {name: getattr(self, name) for name in _names()}
        return {"format": FORMAT, **{name: value for name, value in own.items() if value is not None}, **self.more}

    def write_to(self, checkpoint: MutableMapping[str, Any]) -> None:
        checkpoint[KEY] = self.plain()

    @classmethod
    def of(cls, checkpoint: Any, *, origin: str | Path = "the checkpoint") -> Record:
        """That of a checkpoint read from `origin`.

        Raises:
            UserError: it is another program's, or of another format, or a part of it is missing.
        """
        ours = checkpoint.get(KEY) if isinstance(checkpoint, Mapping) else None
        if not isinstance(ours, Mapping):
            raise UserError(f"{origin} is a checkpoint of another program: it has no {KEY!r} part. {TRAIN_ONE}")
        if ours.get("format") != FORMAT:
            raise UserError(
                f"{origin} has checkpoint format {ours.get('format')}, and this version of diffusion_art reads "
                f"format {FORMAT}. Use the version that wrote it, or train again."
            )
        if missing := [name for name in ("config", "ema", "step") if name not in ours]:
            raise UserError(f"{origin} is incomplete: its {KEY!r} part has no {missing[0]}. {TRAIN_ONE}")
        own = {name: ours[name] for name in _names() if name in ours}
        return cls(**own, more={name: value for name, value in ours.items() if name not in (*own, "format")})


def _names() -> list[str]:
    return [each.name for each in fields(Record) if each.name != "more"]
