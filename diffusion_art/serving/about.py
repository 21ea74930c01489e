"""What the page says of the model it shows: what it was trained on, how far, and what would make a better one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any


def trained(config: Mapping[str, Any], step: int) -> str:
    """One sentence: steps, pictures, data set."""
    wanted, per_step = _length(config)
    of = f" of {wanted:,}" if wanted > step else ""
    pictures = f", {step * per_step:,} pictures" if per_step else ""
    data = _data(config)
    made = " These are synthetic paintings, in the manner of sixteen styles." if _synthetic(config) else ""
    return f"Trained for {step:,}{of} steps{pictures}{f' of {data}' if data else ''}.{made}"


def better(config: Mapping[str, Any], step: int, *, run: str) -> str:
    """What to type: go on with a run that was stopped, take real pictures after synthetic ones, or train longer."""
    wanted, _ = _length(config)
    if 0 < step < wanted:
        return f"The run was not over. Go on with it: python -m diffusion_art.train ... ckpt_path={run}"
    if _synthetic(config):
        return (
            "For your own pictures: python -m diffusion_art.train +experiment=openclipart data.path=FOLDER. "
            "For real paintings, on a GPU: make wikiart"
        )
    return (
        f"Train longer: python -m diffusion_art.train ... ckpt_path={run} trainer.max_steps={2 * max(step, 1)}. "
        "Measure both: python -m diffusion_art.evaluate"
    )


def _length(config: Mapping[str, Any]) -> tuple[int, int]:
    """(steps the run was to take, pictures of one)."""
    trainer, data = config.get("trainer") or {}, config.get("data") or {}
    per_step = int(data.get("global_batch_size") or 0) * int(trainer.get("accumulate_grad_batches") or 1)
    return int(trainer.get("max_steps") or 0), per_step


def _data(config: Mapping[str, Any]) -> str:
    path = (config.get("data") or {}).get("path")
    return PurePosixPath(path).name if isinstance(path, str) else ""


def _synthetic(config: Mapping[str, Any]) -> bool:
    source = (config.get("data") or {}).get("source") or {}
    return str(source.get("_target_", "")).endswith("painter.Painter")
