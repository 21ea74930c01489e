"""A finished or running run, opened for looking: its config, metrics, grids, and its model as a callable.

run = diffusion_art.load_run("logs/quickstart")
run.metrics.plot(y="train/loss")
run(["a red square on white"], seed=3, guidance_scale=4)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art import __version__
from diffusion_art.checkpoints import (
    checkpoint_id,
    find_checkpoint,
    model_of,
    read_checkpoint,
    weights_of,
)
from diffusion_art.config import build
from diffusion_art.diffusion.guidance import tempering
from diffusion_art.diffusion.samplers import Callback, Sampler, by_name
from diffusion_art.errors import UserError
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.record import Record, Weights
from diffusion_art.reports.grids import grids_of
from diffusion_art.sheets import infotext, model_hash
from diffusion_art.sizes import Size, named, size_named

if TYPE_CHECKING:
    import pandas as pd


def load_run(path: str | Path, *, which: str = "last", weights: str = "ema", device: str = "cpu") -> Run:
    """The run at `path`: a run folder, a checkpoint file in one, or a folder of runs (the newest is taken).

    `which` is `last`, `best` or a checkpoint's name. The model is loaded when it is first used.

    Raises:
        UserError: no run there, or no checkpoint that can be read.
    """
    return Run(find_checkpoint(path, which=which), weights=weights, device=device)


class Run:
    """One run, seen from one of its checkpoints. Everything is read when it is asked for."""

    def __init__(self, checkpoint: Path, *, weights: str = "ema", device: str | torch.device = "cpu"):
        self.checkpoint = checkpoint
        self.weights = weights
        self.device = torch.device(device)
        in_a_run = checkpoint.parent.name == "checkpoints"
        self.path = checkpoint.parent.parent if in_a_run else checkpoint.parent

    @property
    def name(self) -> str:
        """As `quickstart/first`, of a run in `logs/quickstart/first`; of a file that lies in no run, its own name."""
        if self.checkpoint.parent.name != "checkpoints":
            return self.checkpoint.stem
        path = self.path.resolve()
        return path.name if path.parent.name == "logs" else f"{path.parent.name}/{path.name}"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, step={self.step}, weights={self.weights!r})"

    @cached_property
    def _content(self) -> dict[str, Any]:
        return read_checkpoint(self.checkpoint)

    @cached_property
    def record(self) -> Record:
        """What its checkpoint tells of it, with its averages."""
        return Record.of(self._content, origin=self.checkpoint)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config the run was made with, as its checkpoint holds it."""
        return self.record.config

    @property
    def step(self) -> int:
        """Optimiser updates behind the checkpoint."""
        return self.record.step

    @property
    def provenance(self) -> dict[str, Any]:
        """Library versions and the commit it was trained at, as far as the checkpoint tells."""
        told = {"versions": self.record.versions, "commit": self.record.commit}
        return {name: value for name, value in told.items() if value is not None}

    @property
    def checkpoints(self) -> list[str]:
        """The names of the run's checkpoints that are named by their step, oldest first."""
        return sorted(file.stem for file in (self.path / "checkpoints").glob("step_*.ckpt"))

    @property
    def tensors(self) -> Weights:
        """The chosen weights by the names of the model's parameters, for which no model is built."""
        return weights_of(self._content, self.weights, origin=self.checkpoint)

    @cached_property
    def checkpoint_id(self) -> str:
        return checkpoint_id(self.checkpoint)

    @property
    def metrics(self) -> pd.DataFrame:
        """`metrics.csv`: one row per logged step, one column per metric, empty where it was not logged."""
        file = self.path / "metrics.csv"
        if not file.is_file():
            raise UserError(f"{self.path} has no metrics.csv: it was trained without the csv logger.")
        import pandas as pd  # painting alone does without

        return pd.read_csv(file)

    @property
    def caption_following(self) -> dict[str, Any] | None:
        """How often its pictures show what was asked, if it was measured."""
        file = self.path / "caption_following.json"
        return json.loads(file.read_text()) if file.is_file() else None

    @property
    def grids(self) -> dict[int, Path]:
        """The sample grids painted in training, by step."""
        return grids_of(self.path)

    @cached_property
    def model(self) -> TextToImage:
        return model_of(self._content, weights=self.weights, origin=self.checkpoint).to(self.device)

    @property
    def prompts(self) -> list[str]:
        """The prompts of its sample grids."""
        return list(self.config.get("prompts") or [])

    def sampler(self, sampler: Sampler | None = None, *, num_steps: int | None = None) -> Sampler:
        """The sampler of its grids, or the one given, in `num_steps` steps if given."""
        node = {"_target_": f"{by_name.__module__}.{by_name.__qualname__}"}  # for a config that holds only the word
        chosen = sampler or build(node | (self.config.get("sampler") or {"name": "dpmpp_2m"}))
        return chosen if num_steps is None else chosen.in_steps(num_steps)

    def guidance_scale(self, guidance_scale: float | None = None) -> float:
        """The guidance of its grids, or the one given."""
        scale = self.config.get("guidance_scale", 1.0) if guidance_scale is None else guidance_scale
        if isinstance(scale, bool) or not isinstance(scale, int | float):
            raise UserError(f"guidance_scale={scale} is not a number; 1 is without guidance, 3 is usual.")
        return float(scale)

    def guidance(self, **changes: Any) -> dict[str, Any]:
        """How guidance is tempered in its grids: interval, rescale, threshold, those given changed.

        Raises:
            UserError: a setting that means nothing.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        return tempering(**((self.config.get("guidance") or {}) | given))

    def story(
        self, sampler: Sampler, *, guidance_scale: float, guidance: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """How its pictures are painted with these settings, as plain data that goes into their files."""
        return {
            "sampler": sampler.describe(),
            "num_steps": sampler.num_steps,
            "guidance_scale": guidance_scale,
            **({"guidance": guidance} if guidance and any(guidance.values()) else {}),
            "checkpoint": self.checkpoint_id,
            "weights": self.weights,
            "software": f"diffusion_art {__version__}",
        }

    def size_of(self, asked: str | None) -> Size:
        """The size (width, height) of that name, one that it was trained on; its square if not given.

        Raises:
            UserError: it does not paint that size.
        """
        own = (self.model.image_size_px, self.model.image_size_px)
        if asked is None:
            return own
        try:
            size = size_named(str(asked).lower())
        except ValueError:
            raise UserError(f"size={asked} is no size: write it as WIDTHxHEIGHT, such as size={named(own)}.") from None
        self.model.latent_shape_of(size)
        return size

    def parameters(
        self,
        *,
        prompt: str,
        negative_prompt: str,
        seed: int,
        sampler: Sampler,
        guidance_scale: float,
        size: Size | None = None,
        model: str | None = None,
        more: dict[str, Any] | None = None,
    ) -> str:
        """The same as the text that AUTOMATIC1111's tools read (see `infotext`)."""
        fields = {
            "Steps": sampler.num_steps,
            "Sampler": sampler.title,
            "CFG scale": f"{guidance_scale:g}",
            "Seed": seed,
            "Size": named(size or self.size_of(None)),
            "Model hash": model_hash(self.checkpoint_id),
            "Model": model or self.name,
            **(more or {}),
            "Version": f"diffusion_art {__version__}",
        }
        return infotext(prompt, negative_prompt, fields)

    def sample(
        self,
        prompts: Sequence[str] | str,
        *,
        seed: int = 0,
        negative_prompt: str = "",
        guidance_scale: float | None = None,
        guidance: dict[str, Any] | None = None,
        guide: TextToImage | None = None,
        num_steps: int | None = None,
        sampler: Sampler | None = None,
        size: str | None = None,
        batch_size: int = 16,
        callback: Callback | None = None,
        progress: bool = False,
    ) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1] for these prompts; picture i is painted from seed + i.

        What is not given is as in the run's own sample grids. `guidance` holds any of interval, rescale and threshold;
        `guide` is a worse model to lead away from (autoguidance). `size` is one that it was trained on (`160x96`).
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        return self.model.generate(
            prompts,
            seeds=[seed + row for row in range(len(prompts))],
            negative_prompts=[negative_prompt] * len(prompts),
            guidance_scale=self.guidance_scale(guidance_scale),
            **self.guidance(**(guidance or {})),
            guide=guide,
            sampler=self.sampler(sampler, num_steps=num_steps),
            size=self.size_of(size),
            batch_size=batch_size,
            callback=callback,
            progress=progress,
        )

    __call__ = sample
