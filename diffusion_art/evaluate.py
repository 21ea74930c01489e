"""Measure a run: `python -m diffusion_art.evaluate run=logs/quickstart 'metrics=[kid,val_x0]'`.

The metrics stand in `conf/evaluate.yaml` under `metric`; docs/evaluation.md says what each means. Several values of
`guidance_scale`, `num_steps`, `sampler` or `checkpoint` are a sweep, several runs a comparison. The figures go into
`evaluation.json`, `report.html` and `MODEL_CARD.md` in the run folder. An evaluation that was stopped goes on where it
was. `judge=train` trains the judge.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("train")

import logging
import sys
from collections.abc import Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from diffusion_art.cli import command
from diffusion_art.config import listed, plain
from diffusion_art.devices import pick_device
from diffusion_art.errors import UserError
from diffusion_art.evaluation.curves import AXES
from diffusion_art.evaluation.evaluate_runs import (
    DEFAULT,
    Opened,
    check_pictures,
    evaluate_run,
    evaluate_runs,
    names_that_fit,
    opened,
    pictures_there,
)
from diffusion_art.evaluation.metrics import Metric, at_least, metrics_of
from diffusion_art.evaluation.metrics.metric import AgainstReal
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.train_judge import train_judge
from diffusion_art.files import command_line
from diffusion_art.overrides import given

log = logging.getLogger(__name__)


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Returns what it wrote: the scores of the judge, those of the run, or those of all runs by their names."""
    count = AgainstReal.pictures if config.pictures is None else config.pictures
    asked = _checked(plain(_with_pictures(config, count)))
    if asked["judge"] == "train":
        return train_judge()
    networks = Networks(pick_device(asked["device"]))
    for metric in metrics_of(asked["metric"], asked["metrics"] or [DEFAULT]).values():
        metric.check(networks)
    paths, typed = asked["run"], command_line("evaluate", sys.argv[1:])
    asked, metrics = _chosen(config, asked, opened(paths, asked), networks)
    if len(paths) == 1:
        return dict(evaluate_run(paths[0], metrics, asked, networks=networks, typed=typed).result)
    return evaluate_runs(paths, metrics, asked, networks=networks, typed=typed)


def _chosen(
    config: DictConfig, asked: dict[str, Any], runs: Sequence[Opened], networks: Networks
) -> tuple[dict[str, Any], dict[str, Metric]]:
    """What is asked for and the metrics, with what was left open chosen by the data of the runs.

    Raises:
        UserError: the data do not hold what the metrics take.
    """
    names = asked["metrics"] or names_that_fit(runs, asked["metric"], networks=networks)
    metrics = metrics_of(asked["metric"], names)
    for metric in metrics.values() if not asked["metrics"] else ():
        metric.check(networks)
    there = pictures_there(runs, metrics) if config.pictures is None else None
    if there is not None:
        log.info("there are %s real pictures: pictures=%d", f"{there:,}", there)
        asked |= {"metric": plain(_with_pictures(config, there))["metric"], "pictures": there}
        metrics = metrics_of(asked["metric"], names)
    check_pictures(runs, metrics, networks=networks)
    return asked | {"metrics": names}, metrics


def _with_pictures(config: DictConfig, pictures: int) -> DictConfig:
    """The config with so many pictures, of which its metrics read."""
    return cast(DictConfig, OmegaConf.merge(config, {"pictures": pictures}))


def _checked(asked: dict[str, Any]) -> dict[str, Any]:
    if asked["judge"] not in ("use", "train"):
        raise UserError(f"judge={asked['judge']} is neither use nor train.")
    if asked["judge"] == "use" and not asked["run"]:
        raise UserError("there is no run to evaluate: give one, as in run=logs/quickstart.")
    for name in ("run", "slices", *(["metrics"] if asked["metrics"] is not None else [])):
        asked[name] = listed(asked[name])
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
