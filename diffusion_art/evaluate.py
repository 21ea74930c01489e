"""Measure a run: `python -m diffusion_art.evaluate run=logs/quickstart metrics=[caption_following,fd,kid,val_x0]`.

The metrics stand in `conf/evaluate.yaml` under `metric`; docs/evaluation.md says what each means. Several values of
`guidance_scale num_steps sampler checkpoint` are a sweep, several runs a comparison. Figures are printed and written to
`evaluation.json` in the run folder. An evaluation that was stopped goes on where it was. `judge=train` trains the judge.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from diffusion_art.cli import command
from diffusion_art.config import build, plain
from diffusion_art.devices import pick_device
from diffusion_art.errors import UserError
from diffusion_art.evaluation.caption_following import save_json
from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.metrics import Metric, at_least, metrics_of
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.slices import by_column
from diffusion_art.evaluation.subject import Subject
from diffusion_art.evaluation.train_judge import train_judge
from diffusion_art.evaluation.work import Work
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.runs import Run, load_run

log = logging.getLogger(__name__)


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Returns what it wrote: the scores of the judge, or those of the run."""
    asked = _checked(plain(config))
    if asked["judge"] == "train":
        return train_judge()
    networks = Networks(pick_device(asked["device"]))
    metrics = metrics_of(asked["metric"], asked["metrics"])
    for metric in metrics.values():
        metric.check(networks)
    run = load_run(asked["run"], which=asked["checkpoint"], weights=asked["weights"], device=str(networks.device))
    folder = Path(asked["out"]) if asked["out"] else run.path
    result = measured(run, metrics, asked, networks=networks, folder=folder)
    save_json(result, folder / "evaluation.json")
    log.info("written to %s", folder / "evaluation.json")
    return result


def measured(
    run: Run, metrics: dict[str, Metric], asked: dict[str, Any], *, networks: Networks, folder: Path
) -> dict[str, Any]:
    """All that the metrics say of one model, painted in one way, with how it was painted."""
    subject = subject_of(run, asked, networks=networks, folder=folder)
    left_out = _left_out(metrics, subject)
    result = dict(subject.story)
    for name, metric in metrics.items():
        if name in left_out:
            continue
        result[name] = _result(name, metric, subject, asked)
        log.info("%s", metric.summary(result[name]))
    if subject.work is not None and not asked["keep_pictures"]:
        subject.work.done()
    return result | ({"left_out": left_out} if left_out else {})


def subject_of(run: Run, asked: dict[str, Any], *, networks: Networks, folder: Path) -> Subject:
    """The run's model, as it paints with these settings, and its data."""
    chosen = build(asked["sampler"]) if asked.get("sampler") else None
    sampler = run.sampler(chosen, num_steps=asked["num_steps"])
    scale, guidance = run.guidance_scale(asked["guidance_scale"]), run.guidance()
    story = {
        "checkpoint": run.checkpoint_id,
        "weights": run.weights,
        "guidance_scale": scale,
        "guidance": guidance,
        "sampler": sampler.describe(),
    }
    told = story | {name: asked[name] for name in ("seed", "batch_size", "real", "slices")}
    return Subject(
        model=run.model,
        generate=partial(paint, run.model, sampler=sampler, guidance_scale=scale, **guidance),
        data=RunData(run.config, real=asked["real"]),
        networks=networks,
        folder=folder,
        story=story,
        seed=asked["seed"],
        batch_size=asked["batch_size"],
        work=Work(folder, told),
    )


def paint(model: TextToImage, captions: list[str], seeds: list[int], **how: Any) -> Tensor:
    """One batch of pictures."""
    return model.generate(captions, seeds=seeds, batch_size=len(captions), **how)


def _result(name: str, metric: Metric, subject: Subject, asked: dict[str, Any]) -> dict[str, Any]:
    def measure() -> dict[str, Any]:
        result = metric.measure(subject)
        count = metric.count(result)
        return result | (by_column(metric, subject, count, asked["slices"]) if count else {})

    return subject.work.metric(name, asked["metric"][name], measure) if subject.work else measure()


def _left_out(metrics: dict[str, Metric], subject: Subject) -> dict[str, str]:
    """The metrics that do not fit the run, each with the reason, which is said. UserError where none is left."""
    refusals = {name: metric.refusal(subject) for name, metric in metrics.items()}
    left_out = {name: reason for name, reason in refusals.items() if reason is not None}
    if left_out and len(left_out) == len(metrics):
        raise UserError(f"{next(iter(left_out.values()))}. Measure others: 'metrics=[kid,val_x0]'.")
    for reason in left_out.values():
        log.warning("%s: it is left out", reason)
    return left_out


def _checked(asked: dict[str, Any]) -> dict[str, Any]:
    if asked["judge"] not in ("use", "train"):
        raise UserError(f"judge={asked['judge']} is neither use nor train.")
    if asked["judge"] == "use" and asked["run"] is None:
        raise UserError("there is no run to evaluate: give one, as in run=logs/quickstart.")
    for name in ("metrics", "slices"):
        asked[name] = [asked[name]] if isinstance(asked[name], str) else list(asked[name] or [])
    at_least(1, batch_size=asked["batch_size"])
    at_least(0, seed=asked["seed"])
    return asked


main = command("evaluate")(evaluate)

if __name__ == "__main__":
    main()
