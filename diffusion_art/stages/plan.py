"""The stages from a collection to a served model, and the facts of the training among them."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from diffusion_art.config import config_dir, plain
from diffusion_art.prompts import EXAMPLES, read_prompts
from diffusion_art.stages.marks import Stage
from diffusion_art.training.run.length import settled_steps
from diffusion_art.training.run.limits import interval, validation_interval

NAMES = ("shards", "statistics", "train", "evaluate", "export", "serve")
MEASURED_ON = 256  # painted pictures that the measurement trains on


@dataclass(frozen=True)
class Training:
    """What the estimate and the stages need to know of a composed training."""

    run_dir: Path
    image_size_px: int
    fit: str
    steps: int | None  # None: so many epochs of an unknown number of pictures
    pictures_per_step: int
    painted: int  # pictures in its sample grids, from step 0 to the end
    validated: int  # pictures that its validations look at
    sampler_steps: int
    kept_checkpoints: int

    @classmethod
    def of(cls, config: DictConfig, *, pictures: int | None, typed: Collection[str] = ()) -> Training:
        """Of a composed `train`, whose length may be epochs of `pictures`. `typed` are the keys that were given.

        Raises:
            UserError: the run has no length.
        """
        trainer, data, callbacks = plain(config.trainer), config.data, config.callbacks
        per_step = int(data.global_batch_size) * int(trainer["accumulate_grad_batches"])
        steps, in_epochs = settled_steps(trainer, typed=typed, per_step=per_step, pictures=lambda: pictures or 0)
        every = validation_interval(trainer["val_check_interval"], max_steps=steps)
        return cls(
            run_dir=Path(config.paths.run_dir),
            image_size_px=int(data.image_size_px),
            fit=str(data.fit),
            steps=None if in_epochs and pictures is None else steps,
            pictures_per_step=per_step,
            painted=_painted(callbacks.get("samples"), steps),
            validated=int(data.val_samples) * (steps // every if isinstance(every, int) else 0),
            sampler_steps=int(config.sampler.num_steps),
            kept_checkpoints=_kept(callbacks.get("checkpoints") or {}, steps),
        )


def _kept(checkpoints: Any, steps: int) -> int:
    """Of a negative number, which keeps all, every one that is written: at intervals and at the end."""
    counts = [int(checkpoints.get(name) or 0) for name in ("keep_last", "keep_best")]
    if min(counts) >= 0:
        return sum(counts)
    return steps // (interval(checkpoints.get("every_n_steps")) or steps) + 1


def _painted(samples: DictConfig | None, steps: int) -> int:
    """Pictures in the grids of step 0, of the end and of all steps between at which they are due."""
    if samples is None:
        return 0
    every, prompts = interval(samples.get("every_n_steps")), plain(samples.get("prompts"))
    due = {0, steps, *(step for step in samples.get("at_steps") or () if step < steps)}
    due |= set(range(0, steps, every)) if every else set()
    return len(due) * (EXAMPLES if prompts == "auto" else len(read_prompts(prompts or [])))


def training_words(asked: dict[str, Any]) -> list[str]:
    """The words that choose the training, without its data."""
    return [f"+experiment={asked['training']}", f"run={asked['run']}", *words_of(asked["train"])]


def composed(words: Sequence[str]) -> DictConfig:
    """The config of `train` with `words`, beside the one that this process runs with."""
    singleton = GlobalHydra.instance()
    before = singleton.hydra
    singleton.clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return compose("train", overrides=list(words))
    finally:
        singleton.clear()
        if before is not None:
            singleton.initialize(before)


def words_of(more: str | Sequence[str] | None) -> list[str]:
    """The words of a line as a shell reads them, or of a list."""
    return shlex.split(more) if isinstance(more, str) else [str(word) for word in more or []]


def measurement(asked: dict[str, Any], training: Training, folder: Path, *, pictures: int) -> Stage:
    """A short training on painted pictures of the same size: nothing of the collection is needed for it."""
    chosen = [word for word in words_of(asked["train"]) if not word.startswith(("data=", "run=", "data.path="))]
    steps, size = int(asked["measure"]["steps"]), training.image_size_px
    words = [
        *(f"+experiment={asked['training']}", *chosen, "run=measure", "data=painter", f"data.image_size_px={size}"),
        *(f"data.source.count={MEASURED_ON}", f"data.path={folder / f'painter-{size}px'}"),
        *(f"data.global_batch_size={pictures}", f"data.val_samples={pictures}", f"paths.log_dir={folder / 'logs'}"),
        *(f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}", "trainer.log_every_n_steps=1"),
        *(f"callbacks.{name}=null" for name in ("samples", "loss_plot", "report", "progress", "caption_following")),
        *(f"callbacks.throughput.every_n_steps={max(1, steps // 4)}", f"callbacks.checkpoints.every_n_steps={steps}"),
        *("callbacks.checkpoints.keep_best=0", "lr_schedule.warmup_steps=1", "logger=csv"),
    ]
    return Stage("measure", "train", tuple(words), folder)


def stages(asked: dict[str, Any], training: Training, folder: Path, *, source: list[str], shards: Path) -> list[Stage]:
    """From the collection's shards to the server. `source` are the words that choose the collection."""
    size, run = training.image_size_px, str(training.run_dir)
    statistics, model = folder / "statistics.json", folder / "model.safetensors"
    figures = training.run_dir / "evaluation.json"
    prepare = [*source, f"out={shards}", f"image_size_px={size}", f"fit={training.fit}", *words_of(asked["prepare"])]
    train = [*training_words(asked), f"data.path={shards}", "ckpt_path=auto"]
    return [
        Stage("shards", "prepare", tuple(prepare), shards / "manifest.json"),
        Stage("statistics", "shards", ("statistics", f"path={shards}", f"out={statistics}"), statistics),
        Stage("train", "train", tuple(train), training.run_dir / "checkpoints"),
        Stage("evaluate", "evaluate", (f"run={run}", *words_of(asked["evaluate"])), figures),
        Stage("export", "export", (f"run={run}", f"path={model}", *words_of(asked["export"])), model),
        Stage("serve", "serve", (f"run={model}", *words_of(asked["serve"]))),
    ]
