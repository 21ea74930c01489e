"""The largest part of a step's pictures that fits into memory at once: `find_batch_size=true`.

Real training steps are taken, in a process of its own, with 1, 2, 4, ... pictures and then bisection, among the sizes
that divide the pictures of a step. On a GPU a size fits when nothing runs out of memory; on a CPU, where running out
means being killed, when the peak of the process stays below a limit: the next size is tried only where the peaks so
far, which are all but linear in the pictures, say that it will.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

import diffusion_art
from diffusion_art.config import build
from diffusion_art.devices import device_of
from diffusion_art.errors import UserError
from diffusion_art.tensors import Batch
from diffusion_art.training.build import build_module, trainer_node
from diffusion_art.training.memory.out_of_memory import is_out_of_memory
from diffusion_art.training.module import DiffusionModule

GPU_SHARE, CPU_SHARE = 0.9, 0.5  # of the free memory, where no limit is given; the loaders' workers want some too
CAPTION = "a long caption that fills the text encoder " * 12


@dataclass
class Found:
    """Pictures at once for each process, and the peak in bytes at each size that was tried."""

    size: int
    limit: int
    peaks: dict[int, int]

    @property
    def per_picture(self) -> float:
        """Bytes that a picture more takes; 0 where one size was tried."""
        (first, low), (last, high) = min(self.peaks.items()), max(self.peaks.items())
        return (high - low) / (last - first) if last > first else 0.0


def block_of(settings: dict[str, Any]) -> int:
    """How many pictures in a row must come at once, since they share their noises."""
    return int(getattr(build(settings["noise"]), "block", 1)) if settings.get("noise") else 1


def usable_sizes(pictures: int, *, world: int, block: int = 1) -> list[int]:
    """Pictures at once for each of `world` processes that divide a step of `pictures` into equal parts of whole blocks.

    Raises:
        UserError: the processes cannot share a step.
    """
    if pictures % world:
        raise UserError(
            f"a step of {pictures} pictures cannot be shared by {world} processes: make data.global_batch_size a "
            f"multiple of {world}."
        )
    share = pictures // world
    if share % block:
        raise UserError(
            f"noise.block={block} does not divide the {share} pictures of a step that each process has. Use "
            f"noise.block={share} or a divisor of it, or noise=immiscible, which needs no blocks."
        )
    return [size for size in range(block, share + 1, block) if share % size == 0]


def largest(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The largest of the rising `sizes` that fits, where all below one that fits do too: doubling, then bisection."""
    if not fits(sizes[0]):
        return None
    good, bad = 0, len(sizes)
    while good + 1 < bad:
        doubled = next((i for i, size in enumerate(sizes) if size >= 2 * sizes[good]), len(sizes) - 1)
        tried = doubled if bad == len(sizes) else (good + bad) // 2
        good, bad = (tried, bad) if fits(sizes[tried]) else (good, tried)
    return sizes[good]


def find_batch_size(settings: dict[str, Any], *, world: int) -> Found:
    """Search in a process of its own, which leaves no memory behind and may be killed.

    Raises:
        UserError: not even one picture fits, the search was killed, or it refuses the settings.
    """
    data, trainer = settings["data"], settings["trainer"]
    pictures = data["global_batch_size"] * trainer["accumulate_grad_batches"]
    sizes = usable_sizes(pictures, world=world, block=block_of(settings))
    asked = json.dumps({"settings": settings, "sizes": sizes, "world": world})
    command = [sys.executable, "-m", __name__]
    path = os.pathsep.join(filter(None, [str(Path(diffusion_art.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}  # so that the child finds this package wherever it runs from
    child = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    lines = child.stdout.strip().splitlines()
    if child.returncode or not lines:
        raise UserError(
            f"the search for a batch size ended with status {child.returncode}. Give memory_limit_gb=..., or "
            "data.global_batch_size and trainer.accumulate_grad_batches themselves."
        )
    told = json.loads(lines[-1])
    if "refused" in told:
        raise UserError(told["refused"])
    peaks = {int(size): int(peak) for size, peak in told["peaks"]}
    if told["size"] is None:
        least = "one picture at once fits" if sizes[0] == 1 else f"{sizes[0]} pictures at once fit"
        raise UserError(
            f"not even {least} into {told['limit'] / 1e9:.3g} GB: take a smaller model/backbone or "
            "data.image_size_px, model.backbone.gradient_checkpointing=true, or a higher memory_limit_gb."
        )
    return Found(told["size"], told["limit"], peaks)


# ---------------------------------------------------------------------- in the child


@dataclass
class Attempts:
    """Real steps at one size after the other, and what they took at most."""

    settings: dict[str, Any]
    world: int
    peaks: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        device = device_of(str(self.settings["trainer"]["accelerator"]))
        self.on_gpu = device == "cuda"
        if device == "mps":
            raise UserError("find_batch_size measures CUDA devices and CPUs, not MPS: give data.global_batch_size.")
        free, share = (
            (torch.cuda.mem_get_info()[0], GPU_SHARE) if self.on_gpu else (psutil.virtual_memory().available, CPU_SHARE)
        )
        asked = self.settings["memory_limit_gb"]
        self.limit = int(free * share if asked is None else asked * 1e9)
        self.module = build_module({**self.settings, "compile": False})
        if self.world > 1:  # the buckets in which processes exchange gradients
            self.limit -= sum(4 * p.numel() for p in self.module.parameters() if p.requires_grad)
        if self.on_gpu:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, max(0.0, self.limit / total)))

    def fits(self, size: int) -> bool:
        if not self.on_gpu and len(self.peaks) > 1 and self.foreseen(size) > self.limit:
            return False
        ran = take_steps(self.module, self.settings, size)
        self.peaks[size] = torch.cuda.max_memory_reserved() if self.on_gpu else peak_rss()
        self.module.zero_grad(set_to_none=True)
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return ran and (self.on_gpu or self.peaks[size] <= self.limit)

    def foreseen(self, size: int) -> float:
        """The peak at `size`, on the line through the two sizes tried last; the process's own peak never falls, so a
        size below one that was tried can only be foreseen.
        """
        (x, low), (y, high) = sorted(self.peaks.items())[-2:]
        return low + (high - low) * (size - x) / (y - x)


def take_steps(module: DiffusionModule, settings: dict[str, Any], size: int) -> bool:
    """Two optimiser steps of two parts each, as training takes them. Returns whether memory sufficed."""
    node = trainer_node(settings["trainer"]) | {
        "accumulate_grad_batches": 2,
        "check_val_every_n_epoch": 1,
        "devices": 1,
        "enable_model_summary": False,
        "fast_dev_run": False,
        "limit_val_batches": 0,
        "max_epochs": -1,
        "max_steps": 2,
        "max_time": None,
        "num_nodes": 1,
        "profiler": None,
        "strategy": "auto",
        "val_check_interval": 1.0,
    }
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "callbacks": None}
    trainer: Trainer = build({**node, "_partial_": True})(**quiet)
    side = settings["data"]["image_size_px"]
    batch = Batch(
        images=torch.zeros(size, 3, side, side),
        captions=[f"{index} {CAPTION}" for index in range(size)],
        keys=[""] * size,
        positions=list(range(size)),
        cursor=1,
    )
    try:
        trainer.fit(module, DataLoader([batch] * 4, batch_size=None))  # type: ignore[arg-type]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def peak_rss() -> int:
    """Bytes of memory this process has held at most. On Linux `ru_maxrss` begins with what its parent held."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        status = ""
    if high := re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE):
        return 1024 * int(high[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _search() -> None:
    asked = json.load(sys.stdin)
    try:
        attempts = Attempts(asked["settings"], asked["world"])
        size = largest(asked["sizes"], attempts.fits)
        told = {"size": size, "limit": attempts.limit, "peaks": list(attempts.peaks.items())}
    except UserError as error:
        told = {"refused": str(error)}
    sys.stdout.write(f"\n{json.dumps(told)}\n")


if __name__ == "__main__":
    _search()
