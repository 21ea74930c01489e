"""Moving averages of the trainable weights, and the one door through which the first of them is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from diffusion_art.accel.lists import lerp
from diffusion_art.accel.shares import copy_into, own
from diffusion_art.errors import UserError
from diffusion_art.models.trainable import check_same_weights
from diffusion_art.training.averages.power_profile import gamma_of, power_decay

Weights = dict[str, Tensor]


class Ema:
    """theta_i <- d_i theta_i + (1 - d_i) theta at update n = 1, 2, ..., for one or several lengths i of memory.

    A `decay` makes an exponential average, d = min(decay, n / (9 + n)); this warm-up lets it forget the random start
    quickly. A `sigma_rel` makes a power-function average, d = (1 - 1 / n)^(gamma + 1), whose memory is a share of the
    run (power_profile.py); two of them, saved now and then, give any other afterwards (posthoc.py).

    The first is what validation, grids and checkpoints use; decays come before widths. Only parameters that require
    gradients are shadowed, in fp32; a frozen text tower is neither copied nor averaged. `decay=0` keeps no memory:
    the average is the current weights.

    Raises:
        UserError: a decay or width out of range, one given twice, or none at all.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        decay: float | Sequence[float] = 0.9999,
        sigma_rel: Sequence[float] = (),
        warmup: bool = True,
    ) -> None:
        decays = [decay] if isinstance(decay, int | float) else list(decay)
        self._decay_at = _profiles(decays, sigma_rel, warmup=warmup)
        self.sigma_rel = {width_name(width): float(width) for width in sigma_rel}
        self.updates = 0
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.averages: dict[str, Weights] = {
            average: {name: p.detach().float().clone() for name, p in self._parameters.items()}
            for average in self._decay_at
        }
        self.gathering: Callable[[], AbstractContextManager[None]] = nullcontext  # whole weights, where they are shared
        self._swapped = False

    @property
    def first(self) -> str:
        """The name of the average that is used."""
        return next(iter(self.averages))

    @property
    def shadow(self) -> Weights:
        """The average that is used."""
        return self.averages[self.first]

    @torch.no_grad()
    def update(self) -> None:
        """Take the current weights into the averages. Called once per optimiser step."""
        self.updates += 1
        self._follow_device()
        weights = [p if p.dtype == torch.float32 else p.float() for p in map(own, self._parameters.values())]
        for name, decay_at in self._decay_at.items():
            lerp([own(value) for value in self.averages[name].values()], weights, 1.0 - decay_at(self.updates))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block the module holds the averaged weights; after it, bit for bit what it held before."""
        if self._swapped:
            raise RuntimeError("the averaged weights are in place already")
        self._follow_device()
        raw = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._load(self.shadow)
        self._swapped = True
        try:
            with self.gathering():
                yield
        finally:
            self._load(raw)
            self._swapped = False

    @torch.no_grad()
    def _load(self, weights: Weights) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])

    def _follow_device(self) -> None:
        """Move the averages to where the weights are, which are all on one device; memory formats stay alike."""
        device = next(iter(self._parameters.values())).device
        for shadow in self.averages.values():
            if next(iter(shadow.values())).device != device:
                shadow.update({name: value.to(device) for name, value in shadow.items()})

    def state_dict(self) -> dict:
        """What a checkpoint holds (`record.py`), and `ema_updates`, the updates in each average."""
        others = {name: dict(shadow) for name, shadow in self.averages.items() if name != self.first}
        return {"ema": dict(self.shadow), "ema_name": self.first, "ema_updates": self.updates, "averages": others}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on from a saved state. An average is looked for by its name; a first one with a decay may also go on from
        what was the first, so that a run can be resumed with another decay. A width is one of the whole run.

        Raises:
            UserError: one that was not tracked so far, and whose past is lost, or one of another model.
        """
        saved = {**state.get("averages", {}), state.get("ema_name", self.first): state["ema"]}
        for average, shadow in self.averages.items():
            other = state["ema"] if average == self.first and average not in self.sigma_rel else None
            found = saved.get(average, other)
            if found is None:
                raise UserError(
                    f"the checkpoint was trained without the average {average}, and its past cannot be made up; it "
                    f"has {', '.join(saved)}. Resume with its ema.decay and ema.sigma_rel, or start a new run."
                )
            check_same_weights(shadow, found)
            for name, value in found.items():
                copy_into(shadow[name], value)
        self.updates = int(state["ema_updates"])


def width_name(sigma_rel: float) -> str:
    """What an average of this width is called in checkpoints and snapshots."""
    return f"sigma_rel_{sigma_rel:.10g}"


def _profiles(decays: Sequence[float], widths: Sequence[float], *, warmup: bool) -> dict[str, Callable[[int], float]]:
    """By name, the decay of update n."""
    for decay in decays:
        if not 0.0 <= decay < 1.0:
            raise UserError(f"ema.decay={decay} is not from 0 to below 1; 0.999 to 0.9999 are usual.")
    named: list[tuple[str, Callable[[int], float]]] = [
        (f"decay_{decay:.10g}", partial(_exponential, decay, warmup)) for decay in decays
    ]
    named += [(width_name(width), partial(power_decay, gamma_of(width))) for width in widths]
    if not named:
        raise UserError("there is no average of the weights to use: give ema.decay=0.9999, or 0 for no memory.")
    if len(dict(named)) < len(named):
        raise UserError(f"an average is asked for twice: {', '.join(name for name, _ in named)}. Name each once.")
    return dict(named)


def _exponential(decay: float, warmup: bool, update: int) -> float:
    return min(decay, update / (9 + update)) if warmup else decay
