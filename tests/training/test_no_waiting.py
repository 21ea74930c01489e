"""Lightning's whole training step on a pretended CUDA device: the host never waits for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.testing._internal.distributed.fake_pg import FakeStore

from diffusion_art.callbacks.cursor import Cursor
from diffusion_art.callbacks.graceful_stop import GracefulStop
from diffusion_art.callbacks.guard import NonFiniteGuard
from diffusion_art.callbacks.throughput import LearningRate, Progress, Throughput
from diffusion_art.diffusion.objective import LogitNormal, NoWeighting, Objective
from diffusion_art.experiments.immiscible import Nearest
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.tensors import Batch
from diffusion_art.training.averages.ema import Ema
from diffusion_art.training.build import hear_signals_alone
from diffusion_art.training.module import DiffusionModule
from diffusion_art.training.muon import Muon
from diffusion_art.training.noise import TrainingNoise
from diffusion_art.training.optim import Cosine
from diffusion_art.training.step import TrainingStep
from tests.fakes import JIT_CONFIG, tiny_clip, toy_model
from tests.waiting import NoWaiting, a_gpu, on_fake_cuda

pytestmark = [
    pytest.mark.filterwarnings("ignore:Total length of `.*` across ranks is zero"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),
]
ADAMW = partial(torch.optim.AdamW, lr=1e-3, fused=True)
STEPS = 1


class PretendedGpu(SingleDeviceStrategy):
    """One CUDA device that need not be there; the module is on it already, and stays."""

    def model_to_device(self) -> None: ...

    def teardown(self) -> None: ...


class PretendedPeers(PretendedGpu):
    """The first of two processes, of which the other tells what this one does."""

    def setup_environment(self) -> None:
        super().setup_environment()
        self.world_size = 2
        torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())

    def teardown(self) -> None:
        torch.distributed.destroy_process_group()


class Endless:
    """Batches without a length, which Lightning would bring to the device and read."""

    def __iter__(self) -> Iterator[Batch]:
        for number in count():
            captions = [f"picture {number} of {row}" for row in range(4)]
            positions = list(range(4 * number, 4 * number + 4))
            yield Batch(torch.zeros(4, 3, 16, 16), captions, captions, positions, number + 1)


class PretendedData(LightningDataModule):
    """Batches of the host, pinned as a loader pins them."""

    global_batch_size, epoch, num_workers, train_loader = 4, 0.5, 0, None

    def train_dataloader(self) -> Endless:
        return Endless()

    def val_dataloader(self) -> list:
        return []


class Watched(Callback):
    """Looks at what the steps send, and not at what comes before and after."""

    def __init__(self, mode: NoWaiting) -> None:
        self.mode = mode

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.mode.watching = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.mode.watching = False


def _trainer(tmp_path: Path, waiting: NoWaiting, strategy: type[PretendedGpu], steps: int) -> Trainer:
    guard, throughput = NonFiniteGuard(folder=str(tmp_path)), Throughput(every_n_steps=1)
    callbacks = [Cursor(), guard, LearningRate(), throughput, GracefulStop(), Progress()]
    trainer = Trainer(
        accelerator="cuda",
        strategy=strategy(torch.device("cuda:0")),
        devices=1,
        precision="bf16-mixed",
        max_steps=steps,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        log_every_n_steps=1000,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[Watched(waiting), *callbacks],
    )
    hear_signals_alone(trainer)
    return trainer


def _fit(
    model: TextToImage,
    tmp_path: Path,
    *,
    optimizer: Any,
    noise: TrainingNoise | None = None,
    strategy: type[PretendedGpu] = PretendedGpu,
    steps: int = STEPS,
) -> Counter[str]:
    """Trains for steps of two parts; what it sent to the device."""
    waiting = NoWaiting()
    waiting.watching = False
    with a_gpu():
        for part in (model, getattr(model.text_encoder, "tower", None)):
            if part is not None:
                on_fake_cuda(part)
        module = DiffusionModule(
            TrainingStep(model.train(), Objective(times=LogitNormal(), weighting=NoWeighting()), noise=noise),
            optimizer=optimizer,
            lr_schedule=Cosine(total_steps=STEPS, warmup_steps=0),
            ema=Ema,
        )
        module._device = torch.device("cuda:0")
        with waiting:
            _trainer(tmp_path, waiting, strategy, steps).fit(module, datamodule=PretendedData())
    return waiting.sent


def test_a_step_with_a_pretrained_tower_waits_for_nothing(tmp_path):
    clip = {"_target_": "diffusion_art.models.text_encoder.OpenClipPretrained"}
    model = toy_model(text_encoder=clip | {"model": f"local-dir:{tiny_clip(tmp_path / 'clip')}"})
    sent = _fit(model, tmp_path, optimizer=ADAMW)
    assert sent["_fused_adamw_"] == 3  # hidden matrices, outer ones, vectors
    assert sent["_foreach_norm"] == sent["_foreach_lerp_"] == 1


@pytest.mark.slow
def test_steps_of_one_of_two_processes_wait_for_nothing(tmp_path):
    sent = _fit(toy_model(), tmp_path, optimizer=ADAMW, strategy=PretendedPeers, steps=9)
    steps = 2  # what is read of a pretended device is one: after the first step it was asked to stop, which is read now
    assert sent["allreduce_"] == steps * (2 + 1 + 1)  # the flags of two parts, the losses of both, and whether to stop


def test_a_step_of_muon_on_the_nearest_noise_waits_for_nothing(tmp_path):
    sent = _fit(toy_model(backbone=JIT_CONFIG), tmp_path, optimizer=partial(Muon, lr=1e-3), noise=Nearest(candidates=2))
    assert sent["baddbmm"] > 0


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.isfinite().all()),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x + torch.tensor(1.0, device=x.device),
        lambda x: x + torch.ones(3).to(x.device),
    ],
)
def test_what_makes_the_host_wait_is_found(waits):
    with a_gpu():
        x = torch.empty(3, device="cuda")
        with NoWaiting(), pytest.raises((AssertionError, RuntimeError)):
            waits(x)
