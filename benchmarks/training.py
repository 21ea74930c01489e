"""Pictures per second of a training step, against two plain loops over the same network, and how busy it keeps the CPU.

    python benchmarks/training.py [pairs=8] [steps=4] [image_size_px=64] [streamed_steps=60]

Every side trains the same UNet (conf/model/backbone/unet_tiny.yaml) with the same text tower on the same captions and
pixels, unshuffled 2 x 2, in the same batches of 32, with AdamW and gradients clipped to 1:

- ours: the step of quickstart32 as `train` runs it, but for the alignment, which the others do not have: bf16-mixed
  where the CPU computes in bf16, stratified times, noise by position, fused AdamW, averaged weights;
- diffusers: the loop of its training examples in fp32: DDPMScheduler.add_noise, torch's AdamW, its default layout;
- denoising-diffusion-pytorch: `Trainer`'s step in fp32 around its own GaussianDiffusion (from PyPI, in an environment
  of its own under build/), Adam, and averaged weights every 10 steps, as there.

Each side has a process of its own, ours with the memory settings of our commands (`diffusion_art/accel/memory.py`), the
others with the system's. They take turns of `steps` steps, since the first step after another process's turn takes
longer than those of a run do; after one turn each to warm up. Ratios are medians over the turns.
Utilisation is the FLOPs of a whole step, counted, Muon's included where it is the optimiser, over its seconds, as a
share of what one bf16 matrix product of side 1024 reaches between the turns. The share of waiting is what the
throughput callback logs while quickstart32 streams from a server of its own.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from hydra import compose, initialize_config_dir
from overhead import Bare
from record import claim, command, figure, machine, missing, write
from stream_peers.environments import python_of
from torch import Tensor, nn
from torch.nn.functional import mse_loss, pixel_unshuffle
from torch.utils.flop_counter import FlopCounterMode

from diffusion_art.accel.memory import keep_memory
from diffusion_art.config import config_dir
from diffusion_art.devices import computes_in_bf16
from diffusion_art.launching.fit import quieten
from diffusion_art.launching.settle import settle
from diffusion_art.sources.painter import Painter
from diffusion_art.tensors import Batch
from diffusion_art.training.build import build_datamodule, build_module, build_trainer

BATCH = 32
WARM_UP = 1
GEMM_SIDE = 1024
GOAL, UTILISATION_GOAL, WAIT_GOAL = 2.0, 0.35, 0.01
DDPM = "denoising-diffusion-pytorch"


def settings_of(folder: Path, *overrides: str) -> dict[str, Any]:
    """quickstart32 on its own, without what happens beside its steps."""
    quiet = ["callbacks.samples=null", "callbacks.caption_following=null", f"paths.log_dir={folder}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return settle(compose("train", overrides=["+experiment=quickstart32", *quiet, *overrides]), folder / "run")


def batches(image_size_px: int, count: int) -> list[Batch]:
    """Painter captions over random pixels: what a step costs does not depend on the picture."""
    painter = Painter(count=BATCH * count)
    captions = [painter.commission(index).caption for index in range(BATCH * count)]
    generator = torch.Generator().manual_seed(0)
    found = []
    for i in range(count):
        images = torch.randn(BATCH, 3, image_size_px, image_size_px, generator=generator).clamp(-1, 1)
        rows = range(i * BATCH, (i + 1) * BATCH)
        found.append(Batch(images, [captions[k] for k in rows], [str(k) for k in rows], list(rows), i + 1))
    return found


@dataclass
class Side:
    """One way to train, in a process of its own."""

    process: ProcessPoolExecutor
    seconds: list[float] = field(default_factory=list)  # of a step, by turns

    def take_turn(self, steps: int) -> None:
        self.seconds.append(self.process.submit(_timed, steps).result())


_loaded: list[Batch]  # of a side's process
_step: Callable[[Batch], Any]


def _begin(make: Callable[[dict[str, Any]], Callable[[Batch], Any]], settings: dict[str, Any]) -> None:
    global _loaded, _step
    quieten()
    _loaded = batches(settings["data"]["image_size_px"], 4)
    _step = make(settings)


def _timed(steps: int) -> float:
    began = time.perf_counter()
    for number in range(steps):
        _step(_loaded[number % len(_loaded)])
    return (time.perf_counter() - began) / steps


def _flops() -> float:
    """Of one step: forward, backward, and what the optimiser multiplies."""
    with FlopCounterMode(display=False) as counter:
        _step(_loaded[0])
    return float(counter.get_total_flops())


def our_step(settings: dict[str, Any]) -> Callable[[Batch], None]:
    keep_memory()
    return Bare(settings, []).step


class Theirs(nn.Module):
    """diffusers' own UNet of our settings, weights included, with a text tower: (x_t, clock) -> noise."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        model = build_module(settings).model
        self.net = model.backbone.as_diffusers()
        self.text_encoder = deepcopy(model.text_encoder)
        self.cond: Any = None

    def forward(self, x_t: Tensor, clock: Tensor, *unused: Any) -> Tensor:
        return self.net(
            x_t,
            clock,
            encoder_hidden_states=self.cond.tokens,
            encoder_attention_mask=self.cond.mask,
            class_labels=self.cond.pooled,
            return_dict=False,
        )[0]


def diffusers_step(settings: dict[str, Any]) -> Callable[[Batch], None]:
    model = Theirs(settings).train()
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(batch: Batch) -> None:
        x_0 = pixel_unshuffle(batch.images, 2)
        noise = torch.randn_like(x_0)
        clock = torch.randint(0, 1000, (len(x_0),))
        model.cond = model.text_encoder.encode(batch.captions)
        loss = mse_loss(model(scheduler.add_noise(x_0, noise, clock), clock), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def ddpm_python() -> Path:
    """The interpreter beside which the library is installed. RuntimeError when it does not install."""
    requirements = Path(__file__).parent / "training_peers.txt"
    return python_of(DDPM, Path(__file__).parents[1] / "build" / "training_peers", requirements=requirements)


def ddpm_step(settings: dict[str, Any]) -> Callable[[Batch], None]:
    """The body of `Trainer.train`: the class itself wants a folder of image files and saves models as it goes."""
    home = ddpm_python()
    sys.path[1:1] = [str(path) for path in home.parents[1].glob("lib/python*/site-packages")]
    library = importlib.import_module("denoising_diffusion_pytorch")
    model = Theirs(settings).train()
    for name, value in {"channels": 12, "out_dim": 12, "self_condition": False}.items():
        setattr(model, name, value)
    model.random_or_learned_sinusoidal_cond = False
    diffusion = library.GaussianDiffusion(
        model, image_size=settings["data"]["image_size_px"] // 2, auto_normalize=False
    )
    average = importlib.import_module("ema_pytorch").EMA(diffusion, beta=0.995, update_every=10)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))

    def step(batch: Batch) -> None:
        model.cond = model.text_encoder.encode(batch.captions)
        diffusion(pixel_unshuffle(batch.images, 2)).backward()
        nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        model.cond = None  # else the average would copy a graph
        average.update()

    return step


def gemm_flops_per_s() -> float:
    """What a bf16 matrix product of side 1024 reaches now (fp32 where the CPU does not compute in bf16)."""
    dtype = torch.bfloat16 if computes_in_bf16(torch.device("cpu")) else torch.float32
    a = torch.randn(GEMM_SIDE, GEMM_SIDE).to(dtype)
    times = []
    for _ in range(6):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * GEMM_SIDE**3 / statistics.median(times)


def waiting_share(steps: int, folder: Path) -> float:
    """`time/data_wait_share` of quickstart32's last window, streaming from a server of its own."""
    settings = settings_of(folder, f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}")
    datamodule, module, trainer = build_datamodule(settings), build_module(settings), build_trainer(settings)
    trainer.fit(module, datamodule=datamodule)
    return float(trainer.callback_metrics["time/data_wait_share"])


def against_peers(ours: Side, sides: dict[str, Side], about: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, side in sides.items():
        ratios = [theirs / mine for mine, theirs in zip(ours.seconds[WARM_UP:], side.seconds[WARM_UP:])]
        ratio = statistics.median(ratios)
        rows.append(
            claim(
                f"training images/s, unet_tiny, {about['image_size_px']} px, batch {BATCH}",
                ours=BATCH / statistics.median(ours.seconds[WARM_UP:]),
                peer=BATCH / statistics.median(side.seconds[WARM_UP:]),
                peer_name=name,
                ratio=ratio,
                ratios=ratios,
                goal=f">= {GOAL:g}",
                holds=ratio >= GOAL,
                **about,
            )
        )
    return rows


def utilisation(name: str, side: Side, flops: float, rates: list[float], about: dict[str, Any]) -> list[dict[str, Any]]:
    shares = [flops / (seconds * rate) for seconds, rate in zip(side.seconds[WARM_UP:], rates[WARM_UP:])]
    share, seconds = statistics.median(shares), statistics.median(side.seconds[WARM_UP:])
    row = claim(
        f"CPU utilisation of a whole step with {name}, {about['image_size_px']} px, GFLOP/s",
        ours=flops / seconds / 1e9,
        peer=statistics.median(rates[WARM_UP:]) / 1e9,
        peer_name=f"bf16 matrix product of side {GEMM_SIDE}",
        ratio=share,
        ratios=shares,
        goal=f">= {UTILISATION_GOAL:g}",
        holds=share >= UTILISATION_GOAL,
        **about,
    )
    return [row, figure(f"ms of a whole step with {name}, {about['image_size_px']} px", 1e3 * seconds, **about)]


def main(pairs: int = 8, steps: int = 4, image_size_px: int = 64, streamed_steps: int = 60) -> None:
    quieten()
    given = {"pairs": pairs, "steps": steps, "image_size_px": image_size_px, "streamed_steps": streamed_steps}
    about = {"command": command("training", **given), "image_size_px": image_size_px, **machine()}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:

        def side(make: Callable[[dict[str, Any]], Callable[[Batch], Any]], *overrides: str) -> Side:
            settings = settings_of(Path(folder), f"data.image_size_px={image_size_px}", "alignment=none", *overrides)
            pool = ProcessPoolExecutor(1, get_context("spawn"), _begin, (make, settings))
            return Side(stack.enter_context(pool))

        ours, with_muon = side(our_step, "optim=adamw"), side(our_step)
        sides = {"bare fp32 diffusers loop": side(diffusers_step, "optim=adamw")}
        try:
            ddpm_python()
            sides[f"{DDPM} step, fp32"] = side(ddpm_step, "optim=adamw")
        except RuntimeError as error:
            rows.append(missing(f"training images/s against {DDPM}", f"does not install: {error}"))
        rates = []
        for _ in range(pairs + WARM_UP):
            for each in (ours, *sides.values(), with_muon):
                each.take_turn(steps)
            rates.append(gemm_flops_per_s())
        rows += against_peers(ours, sides, about)
        for name, each in {"AdamW": ours, "Muon": with_muon}.items():
            rows += utilisation(name, each, each.process.submit(_flops).result(), rates, about)
        waited = waiting_share(streamed_steps, Path(folder) / "stream")
    rows.append(
        claim(
            "share of a training step spent waiting for data while streaming, 32 px",
            ours=waited,
            peer=WAIT_GOAL,
            peer_name="the most it may",
            ratio=waited / WAIT_GOAL,
            goal="<= 1",
            holds=waited <= WAIT_GOAL,
            **about,
        )
    )
    write("training", rows)


if __name__ == "__main__":
    main(**{key: int(value) for key, _, value in (argument.partition("=") for argument in sys.argv[1:])})
