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

from diffusion_art.models.autoencoder import Autoencoder
from diffusion_art.models.clip_to_train import TrainableClip
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.record import Record
from diffusion_art.tensors import Batch
from diffusion_art.training.averages.ema import Ema
from diffusion_art.training.optim import Constant, attach, build_optimizer, clip, fit_states
from diffusion_art.training.plain_steps import AnyStep
from diffusion_art.training.processes.exchange import StepMeans
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
        self.lr_schedule = lr_schedule
        self.config = config or {}
        self.provenance = provenance or {}
        self._ema_of = ema
        self.ema = ema(step.model)
        self._new_optimizer = partial(build_optimizer, optimizer, self, weight_decay=weight_decay)
        self._means = StepMeans()
        self._validation: Any = None  # a `Validation`, while there is one

    def configure_model(self) -> None:
        """Where the strategy shares weights out among processes, so are their averages."""
        strategy: Any = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy) and not isinstance(self.step, FSDPModule):
            strategy.share_out(self.step, compiled=self.config.get("compile"))
            self.ema = self._ema_of(self.step.model)
            self.ema.gathering = partial(whole, self.step)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, map_location: Any = None, *args: Any, **settings: Any) -> Any:
        """The module as a checkpoint of its run left it: `training.load.load_module`."""
        from diffusion_art.training.load import load_module  # which imports this module

        return load_module(checkpoint_path, map_location or "cpu", *args, **settings)

    @property
    def model(self) -> TextToImage | Autoencoder | TrainableClip:
        return self.step.model

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        parts, processes = self.trainer.accumulate_grad_batches, self.trainer.world_size
        size = getattr(getattr(self.trainer, "datamodule", None), "global_batch_size", len(batch))
        example = self.step.drawn(batch, global_batch_size=size, parts=parts)
        losses = self.step(example, step=self.global_step, every_weight=processes > 1)
        self._means.add(losses.by_name(), first=batch_idx % parts == 0)
        if (batch_idx + 1) % parts == 0 or self.trainer.is_last_batch:
            self._means.begin(processes=processes)
        return losses.total()

    def on_after_backward(self) -> None:
        if (means := self._means.taken()) is not None:
            self.log_dict({f"train/{name}": mean for name, mean in means.items()}, batch_size=1)

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
        optimizer = self._new_optimizer()
        schedule = {"scheduler": attach(self.lr_schedule, optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_validation_epoch_start(self) -> None:
        self._validation = Validation(self.step, self.ema)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._validation.see(batch)

    def leave_validation(self) -> bool:
        """Take the weights back that are trained where an error ends a validation; whether there was one."""
        validation, self._validation = self._validation, None
        if validation is not None:
            validation.leave()
        return validation is not None

    def on_validation_epoch_end(self) -> None:
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
        told = {**self.step.frozen(), **self.provenance, **self.ema.state_dict()}
        Record(config=self.config, step=self.global_step, more=self.step.saved(), **told).write_to(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        record = Record.of(checkpoint)
        self.step.check(record)
        self.step.resume(record.more)
        self.ema.load_state_dict(record.plain())
        fit_states(checkpoint.get("optimizer_states", []), self._new_optimizer())
