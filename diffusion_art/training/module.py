"""The Lightning shell: it logs, optimises, averages and saves. The step is `step.py`'s, the maths lives below."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from diffusion_art.checkpoints import find_checkpoint, read_checkpoint
from diffusion_art.errors import UserError
from diffusion_art.models.autoencoder import Autoencoder
from diffusion_art.models.clip_to_train import TrainableClip
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.record import Record
from diffusion_art.tensors import Batch
from diffusion_art.training.averages.ema import Ema
from diffusion_art.training.optim import (
    Constant,
    attach,
    build_optimizer,
    clip,
    lie_alike,
    renew_settings,
)
from diffusion_art.training.plain_steps import AnyStep
from diffusion_art.training.processes.exchange import Exchange
from diffusion_art.training.processes.sharded import ShardedStrategy, whole
from diffusion_art.training.validation import Validation


class DiffusionModule(LightningModule):
    """Trains the model of a `TrainingStep`, an `AutoencoderStep` or a `ClipStep`.

    `optimizer` makes an optimiser from parameter groups; `ema` makes an `Ema` from a module; `config` is the resolved
    run config as plain data, and rides in every checkpoint together with `provenance`.
    """

    def __init__(
        self,
        step: AnyStep,
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        lr_schedule: Constant,
        ema: Callable[..., Ema],
        weight_decay: float = 0.0,
        config: dict[str, Any] | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.step = step
        self.optimizer_factory = optimizer
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.config = config or {}
        self.provenance = provenance or {}
        self._ema_of = ema
        self.ema = ema(step.model)
        self._parts: list[dict[str, Tensor]] = []  # the losses of a step so far
        self._means: tuple[list[str], Exchange] | None = None  # of the losses in all processes, on their way
        self._validation: Validation | None = None  # while there is one

    def configure_model(self) -> None:
        """Where the strategy shares weights out among processes, so are their averages."""
        strategy: Any = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy) and not isinstance(self.step, FSDPModule):
            strategy.share_out(self.step, compiled=self.config.get("compile"))
            self.ema = self._ema_of(self.step.model)
            self.ema.gathering = partial(whole, self.step)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        *args: Any,
        strict: bool | None = True,
        weights_only: bool | None = True,
        **settings: Any,
    ) -> Any:
        """The module of a run as a checkpoint of it left it, with its averages; the config in it says what to build.

        Raises:
            UserError: no checkpoint of a run there, one of an earlier version, or `settings`, which the config has.
        """
        from diffusion_art.training.build import build_module  # which imports this module

        of_lightning = {"strict": strict, "weights_only": weights_only}  # ours are true in any case
        given = [*map(str, args), *settings, *(name for name, value in of_lightning.items() if value is False)]
        if given:
            raise UserError(f"{', '.join(given)}: a module is built as the config in {checkpoint_path} has it.")
        path = find_checkpoint(checkpoint_path)
        checkpoint = read_checkpoint(path)
        if not checkpoint["state_dict"]:
            raise UserError(f"{path} holds averaged weights to paint with, and no module: load_text_to_image(path).")
        try:
            module = build_module(Record.of(checkpoint).config, checkpoint=path)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{path} is of an earlier version, whose settings this one cannot train with ({error}); "
                "load_text_to_image(path) gives the model."
            ) from error
        module.load_state_dict(checkpoint["state_dict"])
        module.on_load_checkpoint(checkpoint)
        return module.to(map_location or "cpu")

    @property
    def model(self) -> TextToImage | Autoencoder | TrainableClip:
        return self.step.model

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        size = getattr(getattr(self.trainer, "datamodule", None), "global_batch_size", len(batch))
        example = self.step.drawn(batch, global_batch_size=size, parts=self.trainer.accumulate_grad_batches)
        losses = self.step(example, step=self.global_step, every_weight=self.trainer.world_size > 1)
        self._tell(losses.by_name(), batch_idx, pictures=len(batch))
        return losses.total()

    def _tell(self, losses: dict[str, Tensor], batch_idx: int, *, pictures: int) -> None:
        """Log the losses with the last part of a step: the means over its parts, which have as many pictures each."""
        parts = self.trainer.accumulate_grad_batches
        self._parts = [*(self._parts if batch_idx % parts else []), losses]
        if (batch_idx + 1) % parts and not self.trainer.is_last_batch:
            return
        named = {f"train/{name}": _mean([part[name] for part in self._parts]) for name in losses}
        if self.trainer.world_size == 1:
            self.log_dict(named, batch_size=pictures)
        else:
            means = torch.stack([loss.to(self.device).float() for loss in named.values()])
            self._means = list(named), Exchange(means / self.trainer.world_size)

    def on_after_backward(self) -> None:
        """The means over all pictures of the step, of which several processes have as many each."""
        if self._means is not None:
            names, means = self._means
            self.log_dict(dict(zip(names, means.values().unbind(), strict=True)), batch_size=1)
            self._means = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.update()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the 2-norm of all gradients, and logs it. Lightning's own refuses fused optimisers in mixed precision,
        since with a gradient scaler they unscale inside; bf16 needs no scaler.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            self.log("train/grad_norm", clip(optimizer, max(0.0, gradient_clip_val or 0.0) or math.inf))

    def configure_optimizers(self) -> Any:
        optimizer: Any = build_optimizer(self.optimizer_factory, self, weight_decay=self.weight_decay)
        if hasattr(optimizer, "train"):  # a schedule-free one, whose weights are averaged here anyway
            optimizer.train()
        schedule = attach(self.lr_schedule, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_validation_epoch_start(self) -> None:
        self._validation = Validation(self.step, self.ema)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert self._validation is not None
        self._validation.see(batch)

    def leave_validation(self) -> bool:
        """Take the weights back that are trained where an error ends a validation; whether there was one."""
        validation, self._validation = self._validation, None
        if validation is not None:
            validation.leave()
        return validation is not None

    def on_validation_epoch_end(self) -> None:
        assert self._validation is not None
        means = self._validation.end(partial(self.trainer.strategy.reduce, reduce_op="sum"))
        self._validation = None
        self.log_dict({f"val/{name}": mean for name, mean in means.items()}, rank_zero_only=False)
        if not self.trainer.sanity_checking:
            self.lr_schedule.observe(means["loss"])

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Trainable weights only: a frozen encoder is named in the config, not copied."""
        return {f"model.{name}": value for name, value in self.model.trainable_state().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        weights = {name.removeprefix("model."): value for name, value in state_dict.items()}
        return self.model.load_trainable_state(weights, strict=strict)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        record = Record(
            config=self.config,
            step=self.global_step,
            **self.step.frozen(),
            more=self.step.saved(),
            **self.provenance,
            **self.ema.state_dict(),
        )
        record.write_to(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        record = Record.of(checkpoint)
        self.step.check(record)
        self.step.resume(record.more)
        self.ema.load_state_dict(record.plain())
        states = checkpoint.get("optimizer_states", [])
        optimizer = build_optimizer(self.optimizer_factory, self, weight_decay=self.weight_decay)
        lie_alike(states, [p for group in optimizer.param_groups for p in group["params"]])
        renew_settings(states, optimizer)


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean()
