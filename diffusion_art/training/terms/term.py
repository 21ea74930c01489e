"""What a training step asks of a term of its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.errors import UserError
from diffusion_art.models.image_tower import ImageTower
from diffusion_art.models.text_to_image import TextToImage


@dataclass
class Seen:
    """What a step knows of its pictures once the network has answered."""

    images: Float[Tensor, "b k h w"]  # pictures, k = 3, for terms that say `sees_pixels`
    t: Float[Tensor, " b"]
    x_0_hat: Callable[[], Float[Tensor, "b 3 h w"]]  # the picture that the answer stands for, decoded; not clipped
    map: Float[Tensor, "b m h2 w2"] | None  # the backbone's, at the place that a term asked for
    features: Float[Tensor, "b d g g"] | None = None  # what `features_of` saw, where it was asked before


class Term(nn.Module):
    """A loss that counts `weight` times beside the objective's, or a voice in the objective, or both.

    Its parameters are optimised with the model's and are no part of the model. A frozen network that it asks is given
    to `hide`.
    """

    name: ClassVar[str]  # its key in the config, in the checkpoint, and in the logs as train/<name>
    sees_pixels: ClassVar[bool] = False  # whether latents in place of the pictures would not do
    off: ClassVar[str] = ""  # what a run without it is given, if not name=none
    weight: float = 1.0
    from_step: int = 0  # the first step with it
    until_step: int | None = None  # the first step without it; None: it never ends
    place: str | None = None  # of the backbone, whose map there it wants to see

    _hidden: list[nn.Module]

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "_hidden", [])  # past nn.Module's registry, as what is in it

    @classmethod
    def of_model(cls, model: TextToImage) -> dict[str, Any]:
        """What the class takes beside the settings of its node: of the model, or the model that is trained."""
        return {}

    def hide(self, name: str, frozen: nn.Module) -> None:
        """Have `frozen`, as the attribute `name`, in eval mode and on the term's device. Optimisers, checkpoints and
        `train()` never see it.
        """
        object.__setattr__(self, name, frozen.requires_grad_(False).eval())
        self._hidden.append(frozen)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Term:
        for frozen in self._hidden:
            frozen._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @property
    def features_of(self) -> ImageTower | None:
        """The tower whose features of the pictures do in place of these; None: they do not."""
        return None

    def active(self, step: int) -> bool:
        return step >= self.from_step and (self.until_step is None or step < self.until_step)

    def told(self, captions: Sequence[str]) -> dict[str, Any]:
        """What the objective is called with besides the pictures."""
        return {}

    def forward(self, seen: Seen) -> Float[Tensor, ""] | None:
        """The loss of the batch, not weighted yet. None: it has none of its own."""
        return None

    def saved(self) -> dict[str, Any]:
        """What it goes on with from a checkpoint, as plain data and tensors; empty: nothing."""
        return {}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what was `saved`.

        Raises:
            UserError: the checkpoint was trained with another one.
        """


def by_name(terms: Iterable[Term]) -> nn.ModuleDict:
    """The terms of one loss.

    Raises:
        UserError: two have one name.
    """
    terms = list(terms)
    if len({term.name for term in terms}) < len(terms):
        raise UserError(f"a term of the loss is given twice: {', '.join(term.name for term in terms)}.")
    return nn.ModuleDict({term.name: term for term in terms})


def step_at(fraction: float, total_steps: int, *, key: str, without: str) -> int:
    """The first step after `fraction` of `total_steps`; exact for what is written in decimals.

    Raises:
        UserError: the run has no end. `key` names the fraction, `without` the setting that needs none.
    """
    if total_steps < 1:
        raise UserError(
            f"{key}={fraction} is a share of the run, and trainer.max_steps={total_steps} sets it no end: "
            f"give trainer.max_steps, or {without}."
        )
    return int(Fraction(str(fraction)) * total_steps)


def states_of(terms: Iterable[Term]) -> dict[str, dict[str, Any]]:
    """What they go on with from a checkpoint, by name."""
    return {term.name: state for term in terms if (state := term.saved())}


def go_on(terms: Iterable[Term], saved: Mapping[str, Mapping[str, Any]]) -> None:
    """Give each term what it saved in a checkpoint.

    Raises:
        UserError: the checkpoint holds the state of a term that is not here, or lacks that of one that is.
    """
    left = dict(saved)
    for term in (term for term in terms if term.saved()):
        if term.name not in left:
            raise UserError(
                f"the checkpoint was trained without the term {term.name} of the loss, and its optimiser goes on "
                f"with the weights it had: resume it with {term.off or f'{term.name}=none'}, or start a new run."
            )
        term.resume(left.pop(term.name))
    for name in left:
        raise UserError(
            f"the checkpoint was trained with the term {name} of the loss, and its optimiser goes on with the "
            f"weights it had: resume it with the {name} of its config.yaml, or start a new run."
        )


def active_at(terms: Iterable[Term], step: int | None) -> list[Term]:
    """Those that count at this step; none outside of training."""
    return [] if step is None else [term for term in terms if term.active(step)]
