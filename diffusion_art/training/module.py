"""The Lightning shell: it draws, asks the objective, optimises, averages and logs. The maths lives elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from diffusion_art.checkpoints import FORMAT, KEY
from diffusion_art.diffusion.distillation import Distillation
from diffusion_art.diffusion.objective import Objective
from diffusion_art.errors import UserError
from diffusion_art.models.text_to_image import Network, TextToImage
from diffusion_art.tensors import Batch
from diffusion_art.training.ema import Ema
from diffusion_art.training.noise import Iid, TrainingNoise
from diffusion_art.training.optim import Constant, Plateau, attach, build_optimizer, clip_gradients
from diffusion_art.training.seeding import VAL_NOISE, draw_step, noise_at, spread_times

THIRDS = ("clean", "middle", "noisy")  # t in [0, 1/3), [1/3, 2/3), [2/3, 1]


class DiffusionModule(LightningModule):
    """Trains a `TextToImage` on batches of pictures and captions.

    `optimizer` makes an optimiser from parameter groups; `ema` makes an `Ema` from a module; `noise` is what pictures
    are mixed with, independent of them if not given; `config` is the resolved run config as plain data, and rides in
    every checkpoint together with `provenance`.
    `network` is what steps through the backbone; a compiled one may stand in for the model's own.

    Raises:
        UserError: a checkpoint to resume that was trained with an alignment where there is none here, or without.
    """

    aligned = False  # whether the optimiser holds more than the model's weights (`aligned.py`)

    def __init__(
        self,
        model: TextToImage,
        objective: Objective | Distillation,
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        lr_schedule: Constant,
        ema: Callable[..., Ema],
        noise: TrainingNoise | None = None,
        weight_decay: float = 0.0,
        caption_dropout: float = 0.1,
        seed: int = 0,
        config: dict[str, Any] | None = None,
        provenance: dict[str, Any] | None = None,
        compile_network: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective: Any = objective  # a subclass may have to tell it more
        self.noise = noise or Iid()
        self.optimizer_factory = optimizer
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.caption_dropout = caption_dropout
        self.seed = seed
        self.config = config or {}
        self.provenance = provenance or {}
        self.ema = ema(model)
        self._network: Network = torch.compile(model.denoise) if compile_network else model.denoise
        self._val_sums: Tensor | None = None
        self._averaged: Any = None

    # ------------------------------------------------------------------ one step

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.training_loss(batch)

    def training_loss(self, batch: Batch, network: Network | None = None) -> Tensor:
        """The mean loss of a batch at its step's draw, logged. `network` takes the place of the module's own."""
        x_0 = self.model.codec.encode(batch.images)
        draw = draw_step(
            batch,
            tuple(x_0.shape[1:]),
            seed=self.seed,
            global_batch_size=self._global_batch_size(batch),
            times=partial(self.objective.times, schedule=self.model.schedule),
            caption_dropout=self.caption_dropout,
            noise=partial(self.noise, x_0, seed=self.seed),
        )
        captions = ["" if drop else caption for caption, drop in zip(batch.captions, draw.dropped.tolist())]
        loss = self.losses(x_0, draw.eps, draw.t, captions, network).mean()
        self.log("train/loss", loss.detach(), batch_size=len(batch))
        return loss

    def losses(
        self, x_0: Tensor, eps: Tensor, t: Tensor, captions: list[str], network: Network | None = None
    ) -> Tensor:
        network = network or self._network
        cond = self.model.encode_captions(captions)
        return self.objective(
            lambda x_t, t: network(x_t, t, cond),
            schedule=self.model.schedule_of(x_0),
            prediction=self.model.prediction,
            x_0=x_0,
            eps=eps,
            t=t,
        )

    def _global_batch_size(self, batch: Batch) -> int:
        datamodule = getattr(self.trainer, "datamodule", None)
        return datamodule.global_batch_size if datamodule is not None else len(batch)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.update()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the 2-norm of all gradients, and logs it.

        Lightning's own refuses fused optimisers in mixed precision, since with a gradient scaler they unscale inside;
        bf16 needs no scaler.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        limit = gradient_clip_val if gradient_clip_val and gradient_clip_val > 0 else float("inf")  # as Lightning's
        norm = clip_gradients((p for g in optimizer.param_groups for p in g["params"]), limit)
        self.log("train/grad_norm", norm)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.optimizer_factory, self, weight_decay=self.weight_decay)
        schedule = attach(self.lr_schedule, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ------------------------------------------------------------------ validation

    def on_validation_epoch_start(self) -> None:
        self._val_sums = torch.zeros(2, len(THIRDS), dtype=torch.float64, device=self.device)
        self._averaged = self.ema.averaged()
        self._averaged.__enter__()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss at fixed times and noise, so that two visits differ by the weights alone."""
        x_0 = self.model.codec.encode(batch.images)
        shape = tuple(x_0.shape[1:])
        eps = noise_at(batch.positions, shape, seed=self.seed, stream=VAL_NOISE, device=self.device)
        t = spread_times(batch.positions).to(self.device)
        losses = self.losses(x_0, eps, t, batch.captions).double()
        third = (t * len(THIRDS)).long().clamp(max=len(THIRDS) - 1)
        assert self._val_sums is not None
        self._val_sums[0].index_add_(0, third, losses)
        self._val_sums[1].index_add_(0, third, torch.ones_like(losses))

    def on_validation_epoch_end(self) -> None:
        self._averaged.__exit__(None, None, None)
        sums = self.trainer.strategy.reduce(self._val_sums, reduce_op="sum")
        losses, counts = sums  # type: ignore[misc]
        loss = float(losses.sum() / counts.sum().clamp(min=1))
        self.log("val/loss", loss, rank_zero_only=False)
        for name, total, count in zip(THIRDS, losses.tolist(), counts.tolist()):
            if count:
                self.log(f"val/loss_{name}", total / count)
        if isinstance(self.lr_schedule, Plateau) and not self.trainer.sanity_checking:
            self.lr_schedule.observe(loss)

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Trainable weights only: a frozen encoder is named in the config, not copied."""
        return {f"model.{name}": value for name, value in self.model.trainable_state().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        weights = {name.removeprefix("model."): value for name, value in state_dict.items()}
        return self.model.load_trainable_state(weights, strict=strict)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        ema = self.ema.state_dict()
        checkpoint[KEY] = {
            "format": FORMAT,
            "config": self.config,
            "ema": ema["shadow"],
            "ema_name": ema["name"],
            "ema_updates": ema["updates"],
            "averages": ema["others"],
            "step": self.global_step,
            "text_encoder": self.model.text_encoder.describe(),
            **self.provenance,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        ours = checkpoint[KEY]
        if ("alignment" in ours) != self.aligned:
            raise UserError(
                f"the checkpoint was trained {'without' if self.aligned else 'with'} an alignment, and its optimiser "
                f"goes on with the weights it had: resume it with "
                f"{'alignment=none' if self.aligned else 'the alignment of its config.yaml'}, or start a new run."
            )
        state = {"updates": ours["ema_updates"], "shadow": ours["ema"], "others": ours.get("averages", {})}
        if "ema_name" in ours:
            state["name"] = ours["ema_name"]
        self.ema.load_state_dict(state)
