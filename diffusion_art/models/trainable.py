"""Models whose trainable weights are all that a checkpoint needs to hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from diffusion_art.accel.shares import copy_into
from diffusion_art.errors import UserError


class Trainable(nn.Module):
    """A module that is trained: its weights by name."""

    called: ClassVar[str]  # in a sentence, such as `an autoencoder`
    use: ClassVar[str]  # what it is for, where somebody asks it to paint
    image_size_px: int

    @property
    def shards(self) -> Sequence[nn.Module]:
        """The blocks that are gathered one by one where the weights are shared out among processes."""
        return ()

    def trainable_state(self) -> dict[str, Tensor]:
        """The trainable weights by name: all that a checkpoint needs to hold."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_trainable_state(self, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
        """Copy weights in by name.

        Raises:
            UserError: with `strict`, missing or surplus names; in any case, a weight of another shape.
        """
        own = self.trainable_state()
        check_same_weights(own, state, strict=strict)
        for name in own.keys() & state.keys():
            copy_into(own[name], state[name])


def check_same_weights(own: Mapping[str, Tensor], state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Raises:
    UserError: `state` does not go into `own`: with `strict`, missing or surplus names; in any case, another shape.
    """
    missing, surplus = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if strict and (missing or surplus):
        raise UserError(
            f"these weights belong to another model: {len(missing)} are missing{_example(missing)} and "
            f"{len(surplus)} unknown{_example(surplus)}. Load them into the model of their own config."
        )
    for name in own.keys() & state.keys():
        if own[name].shape != state[name].shape:
            raise UserError(
                f"these weights belong to another model: {name} has shape {list(state[name].shape)}, "
                f"and here it is {list(own[name].shape)}. Load them into the model of their own config."
            )


def _example(names: list[str]) -> str:
    return f" (such as {names[0]})" if names else ""
