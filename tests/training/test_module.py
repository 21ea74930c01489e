"""What the Lightning shell logs of a step."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from diffusion_art.diffusion.objective import NoWeighting, Objective, Stratified
from diffusion_art.launching.fit import quieten
from diffusion_art.tensors import Batch
from diffusion_art.training.averages.ema import Ema
from diffusion_art.training.module import DiffusionModule
from diffusion_art.training.optim import Constant
from diffusion_art.training.step import TrainingStep
from tests.fakes import toy_model

PICTURES, PARTS = 4, 4  # of the one step


def _batches(*, parts: int) -> list[Batch]:
    """The step in so many parts."""
    images = torch.rand(PICTURES, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    share = PICTURES // parts
    return [
        Batch(images[first : first + share], ["red"] * share, [""] * share, list(range(first, first + share)), part + 1)
        for part, first in enumerate(range(0, PICTURES, share))
    ]


@pytest.mark.filterwarnings("ignore:.*no `val_dataloader`.*")
def test_the_loss_of_a_step_is_the_mean_over_its_parts():
    quieten()
    step = TrainingStep(toy_model().train(), Objective(times=Stratified(), weighting=NoWeighting()))
    (whole,) = _batches(parts=1)
    losses = step(step.drawn(whole, global_batch_size=PICTURES), step=0)
    module = DiffusionModule(
        step, optimizer=partial(torch.optim.SGD, lr=0.0), lr_schedule=Constant(warmup_steps=0), ema=Ema
    )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        accumulate_grad_batches=PARTS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(_batches(parts=PARTS), batch_size=None))  # type: ignore[arg-type]
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(losses.mean.item(), rel=1e-5)
