"""Parameter groups, clipping and learning-rate schedules: each schedule is a factor on the optimiser's own rate."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from diffusion_art.accel.lists import multiply
from diffusion_art.accel.shares import is_shared, own
from diffusion_art.errors import UserError
from diffusion_art.training.muon import Muon


def parameter_groups(module: nn.Module, *, weight_decay: float) -> list[dict]:
    """Weight decay for matrices and kernels only; biases, norms and other vectors go without.

    The matrices between the first and the last layer are marked `hidden`, which Muon asks for and others ignore. Which
    lie outside of these each network in `module` declares itself: its class names its parts that do, modules and
    parameters, in `outer`.
    """
    named_outer = {id(p) for part in module.modules() for p in _outer(part)}
    trained = [p for p in module.parameters() if p.requires_grad]
    hidden = [p for p in trained if p.ndim >= 2 and id(p) not in named_outer]
    outer = [p for p in trained if p.ndim >= 2 and id(p) in named_outer]
    vectors = [p for p in trained if p.ndim < 2]
    groups = [
        {"params": hidden, "weight_decay": weight_decay, "hidden": True},
        {"params": outer, "weight_decay": weight_decay, "hidden": False},
        {"params": vectors, "weight_decay": 0.0, "hidden": False},
    ]
    return [group for group in groups if group["params"]]


def _outer(part: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of what a module declares as its outer parts."""
    for name in getattr(type(part), "outer", ()):
        found = part.get_submodule(name) if name in dict(part.named_modules()) else part.get_parameter(name)
        yield from [found] if isinstance(found, nn.Parameter) else found.parameters()


def build_optimizer(factory: Callable[..., Optimizer], module: nn.Module, *, weight_decay: float = 0.0) -> Optimizer:
    """The optimiser of a module's trained weights. A schedule-free one is set to train: an `Ema` averages its weights.

    Raises:
        UserError: the optimiser refuses its settings.
    """
    if isinstance(factory, partial) and (unknown := _unknown_settings(factory)):
        keys, dropped = ([mark + name for name in unknown] for mark in ("optim.", "~optim."))
        raise UserError(
            f"{factory.func.__name__} does not take {', '.join(keys)}: drop what another optimiser takes with "
            f"{' '.join(dropped)}"
        )
    try:
        optimizer: Any = factory(parameter_groups(module, weight_decay=weight_decay))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the optimiser refuses its settings (in the config at `optim`): {error}.") from error
    if hasattr(optimizer, "train"):
        optimizer.train()
    return optimizer


def _unknown_settings(factory: partial[Optimizer]) -> list[str]:
    """Settings of an optimiser that its class does not take."""
    known = inspect.signature(factory.func).parameters
    if any(each.kind is each.VAR_KEYWORD for each in known.values()):
        return []
    return [name for name in factory.keywords if name not in known]


def fit_states(states: list[dict[str, Any]], optimizer: Optimizer) -> None:
    """Make saved states of the optimiser fit for this run, in place: they lie in memory as its parameters do, and have
    its settings.
    """
    lie_alike(states, [p for group in optimizer.param_groups for p in group["params"]])
    renew_settings(states, optimizer)


def lie_alike(states: list[dict[str, Any]], parameters: list[nn.Parameter]) -> None:
    """Lay the tensors of saved optimiser states out in memory as their parameters are; in place.

    Shares are saved as plain rows, and torch's fused AdamW goes through weights and moments by address, whatever their
    strides: it would take the moments of other weights without a word.
    """
    for each in (each for saved in states for each in saved["state"].items()):
        p, state = parameters[each[0]], each[1]
        for name, value in state.items():
            alike = isinstance(value, Tensor) and value.shape == p.shape
            if alike and value.stride() != p.stride() and not is_shared(p):
                state[name] = torch.empty_like(p.detach(), device=value.device, dtype=value.dtype).copy_(value)


def renew_settings(states: list[dict[str, Any]], optimizer: Optimizer) -> None:
    """Give saved optimiser states the settings of this run, such as weight decay and betas; in place. torch would go on
    with those that the states were saved with, whatever the config says. Rates are the schedule's (`Attached`), and
    what a constructor does not take is no setting: schedule-free optimisers and Prodigy keep there what they learned.
    """
    settings = {name for kind in type(optimizer).__mro__ for name in inspect.signature(kind.__init__).parameters}
    settings = (settings | {"hidden"}) - {"params", "lr"}
    for saved in states:
        for before, now in zip(saved["param_groups"], optimizer.param_groups):
            before.update({name: now[name] for name in now if name in settings})


def clip(optimizer: Optimizer, limit: float) -> Tensor:
    """Scales an optimiser's gradients so that their 2-norm together is at most `limit`; returns what it was: [].

    On a CUDA device the optimiser scales them as it steps, where it can.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if parameters[0].device.type == "cuda" and scales_in_step(optimizer):
        return scale_in_step(optimizer, parameters, limit)
    return clip_gradients(parameters, limit)


def scales_in_step(optimizer: Optimizer) -> bool:
    """Whether a step on a CUDA device divides gradients by `grad_scale` and changes no weight while `found_inf` is 1.

    Both are attributes that hold device scalars. The fused optimisers of torch have them, and ours.
    """
    if any(is_shared(p) for group in optimizer.param_groups for p in group["params"]):
        return False  # of shares the norm is known to all processes together
    return isinstance(optimizer, Muon) or getattr(optimizer, "_step_supports_amp_scaling", False)


def scale_in_step(optimizer: Any, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Leaves clipping to the optimiser's next step, which passes over the gradients anyway; returns their norm: [].

    A norm that is not finite sets `found_inf`, where somebody watches it, and the step is not taken.
    """
    norm = _norm(parameters)
    optimizer.grad_scale = ((norm.float() + 1e-6) / limit).clamp(min=1.0)  # float32 is what the kernels read
    found_inf: Tensor | None = getattr(optimizer, "found_inf", None)
    if found_inf is not None:
        found_inf.logical_or_(~norm.isfinite())
    return norm


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scales the gradients so that their 2-norm together is at most `limit`, and returns what it was: [].

    The same bits as torch's `clip_grad_norm_`. It multiplies by one where there is nothing to clip, since asking would
    make the host wait for a device; on a CPU, where nothing waits, that multiplication is left out.
    """
    parameters = list(parameters)
    norm = _norm(parameters)
    if any(is_shared(p) for p in parameters):
        multiply([own(p.grad) for p in parameters if p.grad is not None], (limit / (norm + 1e-6)).clamp(max=1.0))
    elif norm.device.type != "cpu" or not limit / (norm + 1e-6) >= 1:  # as torch divides; a NaN reaches the gradients
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def _norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The 2-norm of all gradients together."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if any(is_shared(gradient) for gradient in gradients):
        square = torch.nn.utils.get_total_norm([own(gradient) for gradient in gradients]).square()
        torch.distributed.all_reduce(square)
        return square.sqrt()
    together = True if gradients and gradients[0].device.type == "cuda" else None  # None: as torch likes it
    return torch.nn.utils.get_total_norm(gradients, foreach=together)


class Constant:
    """Linear warm-up over `warmup_steps`, none if that is 0, less or None, then the full rate.

    `memory` names what a schedule has learned in a run; all else are settings, and those of the config count.
    """

    memory: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, warmup_steps: float | None) -> None:
        self.warmup_steps = max(0, warmup_steps or 0)

    def __call__(self, step: int) -> float:
        return self.warmup(step)

    def observe(self, loss: float) -> None:
        """Hear of a validation loss."""

    def warmup(self, step: int) -> float:
        return min(1.0, (step + 1) / (self.warmup_steps + 1))


class Cosine(Constant):
    """Linear warm-up, then half a cosine down to `floor` at `total_steps`.

    Paper: Loshchilov & Hutter 2017, SGDR, https://arxiv.org/abs/1608.03983
    """

    def __init__(self, *, total_steps: int, warmup_steps: float | None, floor: float = 0.0) -> None:
        super().__init__(warmup_steps=warmup_steps)
        self.total_steps = total_steps
        self.floor = floor

    def __call__(self, step: int) -> float:
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        fall = 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, done))))
        return self.warmup(step) * (self.floor + (1.0 - self.floor) * fall)


class WarmupStableDecay(Constant):
    """Linear warm-up, the full rate, and over the last `decay_fraction` of `total_steps` down to `floor`.

    With u going from 0 to 1 over the decay its shape is 1 - sqrt(u) or, `linear`, 1 - u. The stable part does not know
    how long the run is: any checkpoint of it can be resumed with more `trainer.max_steps`, or with fewer to decay from
    there.

    Papers: Hu et al. 2024, MiniCPM, https://arxiv.org/abs/2404.06395; Hägele et al. 2024 (1 - sqrt, a fifth of the
    run), https://arxiv.org/abs/2405.18392

    Raises:
        ValueError: another shape, or a share that is none.
    """

    SHAPES: ClassVar = {"1-sqrt": lambda u: 1.0 - math.sqrt(u), "linear": lambda u: 1.0 - u}

    def __init__(
        self,
        *,
        total_steps: int,
        warmup_steps: float | None,
        decay_fraction: float = 0.2,
        shape: str = "1-sqrt",
        floor: float = 0.0,
    ) -> None:
        super().__init__(warmup_steps=warmup_steps)
        if shape not in self.SHAPES:
            raise ValueError(f"shape={shape} of the decay is not one of {', '.join(self.SHAPES)}")
        if not 0.0 < decay_fraction <= 1.0:
            raise ValueError(f"decay_fraction={decay_fraction} is no share of a run: it is above 0 and at most 1")
        self.total_steps = total_steps
        self.decay_fraction = decay_fraction
        self.shape = shape
        self.floor = floor

    def __call__(self, step: int) -> float:
        length = self.decay_fraction * self.total_steps
        done = (step - (self.total_steps - length)) / max(1.0, length)
        fall = self.SHAPES[self.shape](min(1.0, max(0.0, done)))
        return self.warmup(step) * (self.floor + (1.0 - self.floor) * fall)


class Plateau(Constant):
    """Linear warm-up, then times `factor` whenever `patience` validations in a row bring nothing better.

    "Better" is lower by a share of `threshold`, as in `torch.optim.lr_scheduler.ReduceLROnPlateau`.
    """

    memory = ("best", "waited", "scale")

    def __init__(
        self,
        *,
        warmup_steps: float | None,
        patience: int = 16,
        factor: float = 0.2,
        threshold: float = 1e-4,
        floor: float = 0.0,
    ) -> None:
        super().__init__(warmup_steps=warmup_steps)
        self.patience = patience
        self.factor = factor
        self.threshold = threshold
        self.floor = floor
        self.best = math.inf
        self.waited = 0
        self.scale = 1.0

    def __call__(self, step: int) -> float:
        return self.warmup(step) * self.scale

    def observe(self, loss: float) -> None:
        if loss < self.best * (1.0 - self.threshold):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.scale, self.waited = max(self.floor, self.scale * self.factor), 0


def attach(schedule: Constant, optimizer: Optimizer) -> LambdaLR:
    """The schedule as a torch scheduler; its state (a plateau's memory too) is saved with the checkpoint."""
    return Attached(optimizer, schedule)


class Attached(LambdaLR):
    """Of a checkpoint it takes the step and the schedule's memory, and no settings: torch's own would go on with the
    rate and the length of the run that wrote it, whatever the config says.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        rates = list(self.base_lrs)
        saved: dict[str, Any] = state_dict["lr_lambdas"][0] or {}
        schedule: Any = self.lr_lambdas[0]
        learned = {name: saved[name] for name in schedule.memory if name in saved}
        super().load_state_dict({**state_dict, "lr_lambdas": [learned] * len(self.lr_lambdas), "base_lrs": rates})
        for group, rate, before in zip(self.optimizer.param_groups, rates, state_dict["base_lrs"]):
            if learned:  # a plateau that was found since the last step counts from the next one on
                group["lr"] *= rate / before if before else 1.0
            else:
                group["lr"] = rate * schedule(self.last_epoch)
