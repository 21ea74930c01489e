"""What Lightning, the callbacks and the stream cost over a bare loop on tensors in memory.

    python benchmarks/overhead.py [pairs=12] [steps=20]

Trains the quickstart32 model with the shell, as `train` builds it (server process, socket, loader worker, callbacks; no
sample grid, validation or checkpoint falls inside the time). After every `steps` steps the shell's processes are
stopped where they stand, and a plain PyTorch loop trains a twin for `steps` steps on pictures already decoded. So
the two sides share the machine's moods at a distance of seconds. The first pair warms up and is left out; the median
over the other pairs' ratios is the claim.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from record import claim, command, write

from diffusion_art.accel.memory import keep_memory
from diffusion_art.config import config_dir
from diffusion_art.launching.fit import quieten
from diffusion_art.launching.settle import settle
from diffusion_art.tensors import Batch
from diffusion_art.training.build import build_datamodule, build_module, build_trainer
from diffusion_art.training.optim import clip


class Alternate(Callback):
    """Times the shell window by window, and a bare window after each, with the shell's other processes stopped."""

    def __init__(self, bare_window: Callable[[], float], *, steps: int) -> None:
        self.bare_window = bare_window
        self.steps = steps
        self.pairs: list[tuple[float, float]] = []  # seconds of the shell, seconds of the bare loop
        self._began = 0.0
        self._done = 0

    def on_train_start(self, *args, **kwargs) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, *args, **kwargs) -> None:
        self._done += 1
        if self._done % self.steps:
            return
        shell_s = time.perf_counter() - self._began
        others = psutil.Process().children(recursive=True)
        for process in others:
            process.suspend()
        try:
            self.pairs.append((shell_s, self.bare_window()))
        finally:
            for process in others:
                process.resume()
        self._began = time.perf_counter()


def settings_of(steps: int, folder: Path) -> dict:
    overrides = [
        "+experiment=quickstart32",
        f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps}",
        "callbacks.samples=null",
        "callbacks.caption_following=null",
        "alignment.stop_at_fraction=1.0",  # as the bare loop, which aligns at each step
        f"callbacks.checkpoints.every_n_steps={steps}",
        f"paths.log_dir={folder}",
    ]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return settle(compose("train", overrides=overrides), folder / "run")


class Bare:
    """The same maths in a plain loop, a window of steps at a time."""

    def __init__(self, settings: dict, batches: list[Batch], *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.module: Any = build_module(settings).to(self.device)
        self.module.train()
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.batches = batches
        self.clip = settings["trainer"]["gradient_clip_val"]
        self.autocast = settings["trainer"]["precision"] == "bf16-mixed"

    def __call__(self) -> float:
        """Seconds of one step per batch."""
        began = time.perf_counter()
        for batch in self.batches:
            self.step(batch)
        return time.perf_counter() - began

    def step(self, *parts: Batch) -> None:
        """One step on pictures that come in equal parts, on the device already."""
        training = self.module.step
        for part in parts:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                example = training.drawn(part, global_batch_size=len(part), parts=len(parts))
                loss = training(example, step=0).total() / len(parts)
            loss.backward()
        clip(self.optimizer, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.module.ema.update()


def main(pairs: int = 12, steps: int = 20) -> None:
    quieten()
    keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(steps * (pairs + 1), Path(folder))
        reading = build_datamodule({**settings, "data": {**settings["data"], "url": "shards", "num_workers": 0}})
        reading.prepare_data()
        reading.setup()
        loaded = zip(reading.train_dataloader(), range(steps))
        batches = [reading.on_after_batch_transfer(batch, 0) for batch, _ in loaded]
        alternate = Alternate(Bare(settings, batches), steps=steps)
        datamodule, module, trainer = build_datamodule(settings), build_module(settings), build_trainer(settings)
        trainer.callbacks.append(alternate)
        trainer.fit(module, datamodule=datamodule)
    timed = alternate.pairs[1:]
    images = steps * settings["data"]["global_batch_size"]
    for shell_s, bare_s in timed:
        print(f"shell {images / shell_s:.1f}, bare {images / bare_s:.1f} images/s, ratio {bare_s / shell_s:.3f}")
    ratio = statistics.median(bare_s / shell_s for shell_s, bare_s in timed)
    row = claim(
        "quickstart32 images/s, 2 cores: Lightning + callbacks + stream",
        ours=statistics.median(images / shell_s for shell_s, _ in timed),
        peer=statistics.median(images / bare_s for _, bare_s in timed),
        peer_name="bare PyTorch loop on tensors in memory",
        ratio=ratio,
        goal=">= 0.95",
        holds=ratio >= 0.95,
        rounds=pairs,
        command=command("overhead", pairs=pairs, steps=steps),
    )
    write("overhead", [row])


if __name__ == "__main__":
    main(**{name: int(value) for name, _, value in (word.partition("=") for word in sys.argv[1:])})
