"""One training step, without a trainer: pictures at their step's draw -> the loss of each picture and of each term.

    x_t = alpha x_0 + sigma eps
    loss = mean_i objective_i + sum_k weight_k term_k

The times, the noise and the dropped captions of a step belong to its pictures. They do not depend on how many processes
share the step, or in how many parts it is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffusion_art.accel.regions import compile_regions, keep_on_disk
from diffusion_art.checkpoints import check_codec
from diffusion_art.data.transforms import on_device
from diffusion_art.diffusion.denoiser import image_scales
from diffusion_art.diffusion.distillation import Distillation
from diffusion_art.diffusion.objective import Objective
from diffusion_art.errors import UserError
from diffusion_art.models.text_to_image import Network, TextToImage
from diffusion_art.record import Record
from diffusion_art.tensors import Batch, Conditioning, sent
from diffusion_art.training.noise import VAL_NOISE, Iid, TrainingNoise, draw_step, noise_at, seed_units, spread_times
from diffusion_art.training.terms.term import Seen, Term, active_at, by_name, go_on, states_of

TEXT, NETWORK, TERMS = "text encoder", "network, forward pass", "terms of the loss, forward pass"  # spans


@dataclass
class Example:
    """A batch at its draw: what the objective and the terms are asked about."""

    images: Float[Tensor, "b k h w"]  # k = 3; of a batch that came as latents these, for then no term looks at pictures
    captions: list[str]  # b; "" where the caption is withheld
    x_0: Float[Tensor, "b c h2 w2"]
    eps: Float[Tensor, "b c h2 w2"]
    t: Float[Tensor, " b"]
    cond: Conditioning | None = None  # what is said of the captions, where the text encoder was asked before
    features: Float[Tensor, "b m g g"] | None = None  # what is seen in the pictures, where an image tower was


@dataclass
class Losses:
    """The objective's loss of each picture, and by name the loss of each term with its weight.

    `ended` are the terms that are off from this step on, `idle` weights whose gradients are to be zero and not None.
    """

    per_picture: Float[Tensor, " b"]
    terms: dict[str, tuple[float, Float[Tensor, ""]]]
    ended: Sequence[str] = ()
    idle: Sequence[Tensor] = ()

    @classmethod
    def of(
        cls,
        per_picture: Float[Tensor, " b"],
        terms: Sequence[Term],
        seen: Seen,
        *,
        step: int | None,
        every_weight: bool = False,
    ) -> Losses:
        """With what those of `terms` that are active at `step` say of `seen`; see `TrainingStep.forward`."""
        active = active_at(terms, step)
        found = {term.name: (term.weight, loss) for term in active if (loss := term(seen)) is not None}
        idle = [p for term in terms if every_weight and term not in active for p in term.parameters()]
        ended = [term.name for term in terms if step is not None and term.until_step == step]
        return cls(per_picture, found, ended, idle)

    @cached_property
    def mean(self) -> Float[Tensor, ""]:
        """The objective's."""
        return self.per_picture.mean()

    def total(self) -> Float[Tensor, ""]:
        """What is minimised."""
        total = self.mean
        for weight, loss in self.terms.values():
            total = total + weight * loss
        return total + 0.0 * sum(p.sum() for p in self.idle) if self.idle else total

    def by_name(self) -> dict[str, Float[Tensor, ""]]:
        """`loss`, the objective's, and the terms', without gradients; NaN for a term that has just ended, or a logger
        would go on with its last value.
        """
        found = {"loss": self.mean.detach(), **{name: loss.detach() for name, (_, loss) in self.terms.items()}}
        return found | {name: torch.tensor(math.nan) for name in self.ended}


class TrainingStep(nn.Module):
    """The losses of a `TextToImage` on batches of pictures and captions.

    `noise` is what pictures are mixed with, independent of them if not given. `terms` add to the objective's loss, or
    tell it something (`terms/`). `compile_network` is True for the backbone compiled by region, "whole" for
    one graph of all of it; the weights are the model's own.

    Raises:
        UserError: two terms of one name, or terms that want maps of the backbone at different places.
    """

    def __init__(
        self,
        model: TextToImage,
        objective: Objective | Distillation,
        *,
        noise: TrainingNoise | None = None,
        terms: Iterable[Term] = (),
        caption_dropout: float = 0.1,
        seed: int = 0,
        compile_network: bool | str = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective: Any = objective
        self.noise = noise or Iid()
        self.terms = by_name(terms)
        self.caption_dropout = caption_dropout
        self.seed = seed
        whole = compile_network == "whole"
        if compile_network is True:
            compile_regions(model.backbone, model.backbone.regions)
        elif whole:
            keep_on_disk()
        self._drops = any(isinstance(part, nn.Dropout) and part.p > 0 for part in model.modules())
        self._network: Network = torch.compile(model.denoise) if whole else model.denoise
        self._with_map = torch.compile(model.backbone.with_map) if whole else model.backbone.with_map

    # ------------------------------------------------------------------ the draw

    def drawn(self, batch: Batch, *, global_batch_size: int, parts: int = 1) -> Example:
        """A batch at the draw of its step, which consists of `parts` global batches."""
        batch = on_device(batch)  # one from a loader in a loop of one's own
        x_0 = self._latents(batch)
        draw = draw_step(
            batch,
            seed=self.seed,
            global_batch_size=global_batch_size,
            parts=parts,
            times=partial(self.objective.times, schedule=self.model.schedule),
            caption_dropout=self.caption_dropout,
            noise=partial(self.noise, x_0, seed=self.seed),
        )
        if self._drops:
            seed_units(batch, seed=self.seed)
        captions = ["" if drop else caption for caption, drop in zip(batch.captions, draw.dropped.tolist())]
        cond = self._told(batch.cond, draw.dropped)
        return Example(batch.images, captions, x_0, draw.eps, draw.t, cond, batch.features)

    def validated(self, batch: Batch) -> Example:
        """A batch at fixed times and noise, so that two visits differ by the weights alone."""
        batch = on_device(batch)
        x_0 = self._latents(batch)
        device = batch.images.device
        eps = noise_at(batch.positions, tuple(x_0.shape[1:]), seed=self.seed, stream=VAL_NOISE, device=device)
        t = spread_times(batch.positions, device=device)
        return Example(batch.images, batch.captions, x_0, eps, t, batch.cond, batch.features)

    def _latents(self, batch: Batch) -> Float[Tensor, "b c h w"]:
        return batch.images if batch.encoded else self.model.codec.encode(batch.images)

    def _told(self, cond: Conditioning | None, dropped: Bool[Tensor, " b"]) -> Conditioning | None:
        """What was said before of the captions, and of those that are withheld what is said of none."""
        if cond is None or not dropped.any():
            return cond
        null = self.model.encode_captions([""])
        length = max(null.tokens.shape[1], cond.tokens.shape[1])  # what a pair says on the way has gaps, and is longer
        null, cond = null.pad_to(length), cond.pad_to(length)
        here = sent(dropped, cond.tokens.device)
        return Conditioning(
            torch.where(here[:, None, None], null.tokens, cond.tokens),
            torch.where(here[:, None], null.mask, cond.mask),
            torch.where(here[:, None], null.pooled, cond.pooled),
        )

    # ------------------------------------------------------------------ the losses

    def forward(self, example: Example, *, step: int | None = None, every_weight: bool = False) -> Losses:
        """`step` is how many optimiser updates went before; without one, no term adds its loss.

        With `every_weight` the loss also depends on the weights of terms that have ended, for which it has gradients of
        zero: several processes wait for a gradient of each. They move nothing that the model depends on.
        """
        active = active_at(self._terms(), step)
        places = {term.place for term in active if term.place is not None}
        if len(places) > 1:
            raise UserError(f"terms want maps of the backbone at {' and '.join(sorted(places))}: give them one place.")
        per_picture, out, seen_map = self._asked(example, next(iter(places), None))
        seen = Seen(example.images, example.t, partial(self._x_0_hat, example, out), seen_map, example.features)
        with span(TERMS):
            return Losses.of(per_picture, self._terms(), seen, step=step, every_weight=every_weight)

    def _asked(self, example: Example, place: str | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The objective's losses, the network's last answer to it, and its map at `place`."""
        with span(TEXT):
            cond = example.cond or self.model.encode_captions(example.captions)
        out, seen = example.x_0, None

        def network(x_t: Tensor, t: Tensor) -> Tensor:
            nonlocal out, seen
            out, seen = self._answer(x_t, t, cond, place)
            return out

        told = {key: value for term in self._terms() for key, value in term.told(example.captions).items()}
        losses = self.objective(
            network,
            **told,
            schedule=self.model.schedule_of(example.x_0),
            prediction=self.model.prediction,
            x_0=example.x_0,
            eps=example.eps,
            t=example.t,
        )
        return losses, out, seen

    def _answer(self, x_t: Tensor, t: Tensor, cond: Conditioning, place: str | None) -> tuple[Tensor, Tensor | None]:
        with span(NETWORK):
            return (self._network(x_t, t, cond), None) if place is None else self._with_map(x_t, t, cond, place)

    def _x_0_hat(self, example: Example, out: Tensor) -> Float[Tensor, "b 3 h w"]:
        alpha, sigma = image_scales(self.model.schedule_of(example.x_0), example.t)
        x_t = alpha * example.x_0 + sigma * example.eps
        return self.model.codec.decode(self.model.prediction.to_x0(out.float(), x_t, alpha, sigma))

    def _terms(self) -> list[Term]:
        return cast(list[Term], list(self.terms.values()))

    # ------------------------------------------------------------------ checkpoints

    def frozen(self) -> dict[str, Any]:
        """What a checkpoint says of the model's frozen parts, and holds of the codec."""
        codec = self.model.codec.describe()
        if codec and (kept := self.model.codec.kept()):
            codec["weights"] = kept
        return {"text_encoder": self.model.text_encoder.describe(), "codec": codec}

    def check(self, record: Record) -> None:
        """UserError where the run to go on with was trained on latents of other weights."""
        check_codec(self.model, record.codec, "the checkpoint")

    def saved(self) -> dict[str, Any]:
        """What the terms go on with from a checkpoint, by name."""
        return {"terms": states_of(self._terms())}

    def resume(self, ours: Mapping[str, Any]) -> None:
        """Give each term what it saved in our part of a checkpoint. UserError where the terms are others."""
        go_on(self._terms(), states_in(ours))


def states_in(ours: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What terms have saved in our part of a checkpoint, by name; older ones held it beside the rest."""
    if "terms" in ours:
        return dict(ours["terms"])
    found: dict[str, dict[str, Any]] = {}
    if "alignment" in ours:  # all were in the middle before there was a choice
        found["alignment"] = {"place": ours.get("alignment_place", "middle"), "weights": ours["alignment"]}
    if "teacher" in ours:
        found["teacher"] = {"id": ours["teacher"]}
    return found


# ---------------------------------------------------------------------- parts of a step by name
#
# For a measurement of where its time goes; where nobody measures, they cost nothing.


class Listener(NamedTuple):
    """Hears the names of the parts that begin, and that the innermost one is over."""

    enter: Callable[[str], None]
    leave: Callable[[], None]


_listeners: list[Listener] = []


@contextmanager
def span(name: str) -> Iterator[None]:
    """Inside the block time is spent on `name`."""
    heard = list(_listeners)
    for listener in heard:
        listener.enter(name)
    try:
        yield
    finally:
        for listener in heard:
            listener.leave()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside the block `listener` hears every span of this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
