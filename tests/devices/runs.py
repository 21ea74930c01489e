"""Training runs on a device that is not there: the real config, module, data and trainer, on a narrow network."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, open_dict

from diffusion_art.config import config_dir
from diffusion_art.launching.fit import quieten
from diffusion_art.launching.settle import settle
from diffusion_art.shards.build.build import build_shards
from diffusion_art.sources.painter import Painter
from diffusion_art.training.build import build_datamodule, build_module, build_trainer
from diffusion_art.training.module import DiffusionModule
from tests.fakes import tiny_clip, tiny_transformer, toy_run, toy_vae

NARROW: dict[str, dict[str, Any]] = {  # by a key that tells the kind of network: what replaces what its yaml says
    "block_channels": {
        "block_channels": [8, 8],
        "attention_sides": [8, 2],  # one of them is there, whatever the codec
        "norm_groups": 4,
        "head_channels": 8,
        "layers_per_block": 1,
    },
    "patch_size": {"width": 16, "depth": 2, "head_channels": 8, "bottleneck": 8, "context_from": 1},
    "vocab_size": {"width": 32, "layers": 1, "heads": 2, "vocab_size": 1024},
}
SLOW = ("progress", "caption_following", "loss_plot", "report")  # callbacks that touch no device, and one of many calls
WHOLE = ("samples", "checkpoints")
SIZE_PX = 16  # of all runs alike, for what was found about a shape is kept
PICTURES = 24  # of which four fifths are trained on


def choices(group: str) -> list[str]:
    """The yamls of a group of `conf/`."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml") if path.stem != "default")


def narrow(network: dict[str, Any]) -> dict[str, Any]:
    """The same kind of network, small; of a pair, each of them."""
    if "encoders" in network:
        return network | {"encoders": {name: narrow(part) for name, part in network["encoders"].items()}}
    found = [network | changes for key, changes in NARROW.items() if key in network]
    (changed,) = found or [network]
    return changed


class Runs:
    """Runs in a folder. Data, CLIP and teacher are made when a run first asks for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clip = cache(lambda: f"local-dir:{tiny_clip(folder / 'clip')}")
        self.teacher = cache(lambda: str(toy_run(folder / "teacher")))
        self.vae = cache(lambda: str(toy_vae(folder / "vae")))
        self.bert = cache(lambda: str(tiny_transformer(folder / "bert")))
        self.shards = cache(self._shards)

    def _shards(self) -> str:
        out = self.folder / "painter"
        painter = Painter(count=PICTURES, image_size_px=SIZE_PX)
        build_shards(painter, out, image_size_px=SIZE_PX, val_fraction=0.2, progress=False, workers=1)
        return str(out)

    def settings(
        self, *overrides: str, name: str = "run", validate: bool = True, whole: bool = False
    ) -> dict[str, Any]:
        """Of a step of four pictures on the GPU, and a validation. Call it where there is one: it decides the
        precision. A `whole` run also paints grids and writes checkpoints.
        """
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = compose("train", overrides=["trainer.accelerator=gpu", *overrides])
        with open_dict(config):
            self._complete(config, whole=whole)
        settings = settle(config, self.folder / name)
        if not settings.get("teacher") and "backbone" in settings["model"]:  # a teacher is narrow already
            settings["model"] |= {part: narrow(settings["model"][part]) for part in ("backbone", "text_encoder")}
        if settings["alignment"] is not None:
            settings["alignment"]["total_steps"] = 100  # a share of one step is none
        settings["trainer"]["limit_val_batches"] = 1 if validate else 0
        settings["compile"] = False  # a compiler asks a driver
        return settings

    def _complete(self, config: DictConfig, *, whole: bool) -> None:
        if config.get("teacher"):
            config.teacher.run = self.teacher()
        towers = ((term or {}).get("tower") for term in (config.alignment, config.perceptual))
        text = config.model.get("text_encoder") or {}
        for tower in (text, *text.get("encoders", {}).values(), *towers):
            if tower and "pretrained" in tower:
                tower.model, tower.pretrained = self.clip(), None
            if tower and str(tower.get("_target_")).endswith(".Transformers"):
                tower.path = self.bert()
        if config.perceptual and "pretrained" in config.perceptual.tower:
            config.perceptual.layers = []  # the small tower has one block, its last
        if "path" in (config.model.get("codec") or {}).keys():  # noqa: SIM118 -- as above
            config.model.codec.path = self.vae()
        config.data.source = None
        config.data.path, config.data.image_size_px = self.shards(), SIZE_PX
        config.data.url, config.data.num_workers = "shards", 0
        config.data.global_batch_size, config.data.val_samples = 4, 4
        config.trainer.max_steps = config.trainer.val_check_interval = 1
        if "block" in config.noise:
            config.noise.block = 2
        config.trainer.accumulate_grad_batches, config.trainer.log_every_n_steps = 1, 1
        config.prompts = ["red", "blue"]
        if "sampler" in config:
            config.sampler.num_steps = 2
        for name in (*SLOW, *([] if whole else WHOLE)):
            config.callbacks[name] = None


def fit(settings: dict[str, Any], *others: Callback, resume: Path | None = None) -> tuple[DiffusionModule, Trainer]:
    """Train as the command does, with `others` beside the callbacks of the settings."""
    quieten()
    warnings.filterwarnings("ignore", message="Total length of")  # Lightning asks the device whether 1 == 0
    warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")  # deepcopy does
    module, trainer = build_module(settings), build_trainer(settings)
    trainer.callbacks += others  # pyright: ignore[reportAttributeAccessIssue]
    trainer.fit(module, datamodule=build_datamodule(settings), ckpt_path=resume, weights_only=True)
    return module, trainer
