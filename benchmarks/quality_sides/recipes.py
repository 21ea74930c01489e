"""From the names of recipes, which are experiments and ablations of `conf/experiment`, to settled runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from diffusion_art.config import config_dir
from diffusion_art.errors import UserError
from diffusion_art.launching.settle import settle

EXPERIMENTS = config_dir() / "experiment"
# what paints, measures or draws while training: the yardstick does that, outside the time
LEFT_OUT = ("samples", "caption_following", "loss_plot", "report", "early_stopping", "progress", "checkpoints")
# what a run's result does not depend on
CIRCUMSTANCES = ("paths", "run", "name", "ckpt_path", "logger", "prompts", "optimized_metric", "callbacks")


@dataclass(frozen=True)
class Planned:
    """One training run: a recipe, a seed and a length, with the steps after which it is measured."""

    recipe: str
    settings: dict[str, Any]
    folder: Path
    steps: list[int]  # ascending; the last one ends the run


def experiment_of(recipe: str) -> str:
    """The experiment that a recipe is: an ablation, or one beside them.

    Raises:
        UserError: there is none of that name.
    """
    for folder in ("ablation/", ""):
        if (EXPERIMENTS / f"{folder}{recipe}.yaml").is_file():
            return f"{folder}{recipe}"
    known = ", ".join(sorted(file.stem for file in EXPERIMENTS.glob("ablation/*.yaml")))
    raise UserError(f"recipes={recipe} is no experiment and no ablation; these are {known}.")


def settings_of(recipe: str, *, size: int, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """The recipe as `train` would settle it, without callbacks that take time."""
    asked = [
        f"+experiment={experiment_of(recipe)}",
        f"data.image_size_px={size}",
        f"seed={seed}",
        f"trainer.max_steps={steps}",
    ]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        settings = settle(compose("train", overrides=asked), folder)
    settings["callbacks"] |= dict.fromkeys(LEFT_OUT)
    settings["logger"] = {}
    settings["trainer"] |= {"limit_val_batches": 0, "log_every_n_steps": 10**9}
    return settings


def plan(recipe: str, *, size: int, seed: int, budgets: list[int], root: Path) -> list[Planned]:
    """The runs that give a recipe's quality at each budget of pictures.

    What ends with the run (a cosine rate, an alignment) is fitted to each budget: a run for each. Any other recipe is
    read along one run. The folder is named by the settings, so that a changed recipe starts anew.
    """
    probe = settings_of(recipe, size=size, seed=seed, steps=1, folder=root)
    batch = probe["data"]["global_batch_size"] * probe["trainer"]["accumulate_grad_batches"]
    steps = [max(1, round(budget / batch)) for budget in budgets]
    fitted = any("total_steps" in (probe[part] or {}) for part in ("lr_schedule", "alignment"))
    runs = [[step] for step in steps] if fitted else [steps]
    planned = []
    for points in runs:
        settings = settings_of(recipe, size=size, seed=seed, steps=points[-1], folder=root)
        length = f"-{points[-1]}" if fitted else ""
        folder = root / f"{size}px" / recipe / f"seed{seed}{length}-{digest(settings, fitted=fitted)}"
        settings["paths"]["run_dir"] = str(folder)
        planned.append(Planned(recipe, settings, folder, points))
    return planned


def digest(settings: dict[str, Any], *, fitted: bool) -> str:
    """Six letters for all that a result depends on; the length counts only where something is fitted to it."""
    kept = {key: value for key, value in settings.items() if key not in CIRCUMSTANCES}
    if not fitted:
        kept["trainer"] = {**kept["trainer"], "max_steps": None}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:6]
