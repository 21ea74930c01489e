"""What is said of the model that is served: what it paints, how it was trained, and what would make a better one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from diffusion_art.diffusion.samplers import SAMPLERS
from diffusion_art.runs import Run
from diffusion_art.serving.api.schema import Bounds, Defaults, Model
from diffusion_art.serving.settings import Settings
from diffusion_art.sizes import named


def describe(run: Run, settings: Settings, *, max_jobs: int) -> Model:
    """A run as it is served, by an engine that takes so many jobs at a time."""
    limits, sampler, guidance = settings.limits, run.sampler(), run.guidance()
    square = named((run.model.image_size_px, run.model.image_size_px))
    return Model(
        id=settings.name or run.name,
        created=int(run.checkpoint.stat().st_mtime),
        size=square,
        painted_sizes=[named(size) for size in run.model.sizes] or [square],
        checkpoint=run.checkpoint_id,
        step=run.step,
        trained=trained(run.config, run.step),
        better=better(run.config, run.step, run=place_of(run)),
        samplers=list(SAMPLERS),
        defaults=Defaults(
            num_inference_steps=sampler.num_steps,
            times=None if sampler.times is None else list(sampler.times),
            guidance_scale=run.guidance_scale(),
            guidance_interval=guidance["interval"] and list(guidance["interval"]),
            guidance_rescale=guidance["rescale"],
            guidance_threshold=guidance["threshold"],
            sampler=sampler.name,
        ),
        limits=Bounds(
            n=min(limits.max_n, max_jobs),
            num_inference_steps=limits.max_steps,
            prompt_characters=limits.max_prompt_chars,
            sizes=limits.sizes,
            side_px=limits.max_size_px,
        ),
    )


def place_of(run: Run) -> str:
    """The run folder as it is typed, from the folder `logs` on; one that lies elsewhere is not told to visitors."""
    parts = run.path.resolve().parts
    if run.checkpoint.parent.name != "checkpoints" or "logs" not in parts:
        return "logs/NAME/RUN"
    return "/".join(parts[len(parts) - 1 - parts[::-1].index("logs") :])


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
