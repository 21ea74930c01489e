"""Measure a run: `python -m diffusion_art.evaluate run=logs/quickstart 'metrics=[kid,val_x0]'`.

The metrics stand in `conf/evaluate.yaml` under `metric`; docs/evaluation.md says what each means. Several values of
`guidance_scale`, `num_steps`, `sampler` or `checkpoint` are a sweep, several runs a comparison. The figures go into
`evaluation.json`, `report.html` and `MODEL_CARD.md` in the run folder. An evaluation that was stopped goes on where it
was. `judge=train` trains the judge.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("train")

import sys
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.devices import pick_device
from diffusion_art.errors import UserError
from diffusion_art.evaluation.curves import AXES
from diffusion_art.evaluation.evaluate_runs import check_pictures, evaluate_run, evaluate_runs
from diffusion_art.evaluation.metrics import at_least, metrics_of
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.train_judge import train_judge
from diffusion_art.files import command_line
from diffusion_art.overrides import given


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Returns what it wrote: the scores of the judge, those of the run, or those of all runs by their names."""
    asked = _checked(plain(config))
    if asked["judge"] == "train":
        return train_judge()
    networks = Networks(pick_device(asked["device"]))
    metrics = metrics_of(asked["metric"], asked["metrics"])
    for metric in metrics.values():
        metric.check(networks)
    paths, typed = asked["run"], command_line("evaluate", sys.argv[1:])
    check_pictures(paths, metrics, asked, networks=networks)
    if len(paths) == 1:
        return dict(evaluate_run(paths[0], metrics, asked, networks=networks, typed=typed).result)
    return evaluate_runs(paths, metrics, asked, networks=networks, typed=typed)


def _checked(asked: dict[str, Any]) -> dict[str, Any]:
    if asked["judge"] not in ("use", "train"):
        raise UserError(f"judge={asked['judge']} is neither use nor train.")
    if asked["judge"] == "use" and not asked["run"]:
        raise UserError("there is no run to evaluate: give one, as in run=logs/quickstart.")
    for name in ("run", "metrics", "slices"):
        asked[name] = list(asked[name] or []) if not isinstance(asked[name], str) else [asked[name]]
    asked["sampler"] = _several_samplers() or asked.get("sampler")
    if empty := [axis for axis in (*AXES, "metrics") if asked[axis] == [] and asked["judge"] == "use"]:
        raise UserError(f"{empty[0]}=[] holds nothing to measure with: give one value or more.")
    at_least(1, batch_size=asked["batch_size"])
    at_least(0, seed=asked["seed"])
    return asked


def _several_samplers() -> list[str] | None:
    """The names of `sampler=[ddim,heun]`, of which Hydra would make one sampler with the settings of both."""
    typed = given()
    lists = [word.partition("=")[2] for word in typed if word.startswith("sampler=[")]
    more = [word for word in typed if word.lstrip("+").startswith("sampler.")]
    if lists and more:
        raise UserError(f"{more[0]} is for one sampler, not for each of sampler={lists[-1]}. Evaluate it by itself.")
    return plain(OmegaConf.create(lists[-1])) if lists else None


main = command("evaluate")(evaluate)

if __name__ == "__main__":
    main()
