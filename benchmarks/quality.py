"""Quality against training time and FLOPs, recipe by recipe, on the painter's pictures.

    python benchmarks/quality.py short=true                            # ours and the baseline, 15 minutes on 2 cores
    python benchmarks/quality.py recipes=before,adamw seeds=0,1,2      # any of conf/experiment and its ablation/
    python benchmarks/quality.py name=ablations budgets=12800 recipes=before,edm  # of a name of its own
    python benchmarks/quality.py size=64 budgets=6400,25600 theirs=25600  # other budgets for the baselines
    python benchmarks/quality.py clock=true recipes=...                # seconds per step alone, for a quiet machine

Each recipe is trained to budgets of pictures, so that its quality there is the same on any machine; what ends with the
run (a cosine rate, an alignment) is fitted to each budget by a run of its own. At a budget the averaged weights (the
raw ones where a recipe averages none) paint 1,104 fresh prompts in `steps` steps of DPM-Solver++(2M), at the guidance
the recipe ships with: caption following by the judge, FD and KID against 2,048 real paintings, and the x_0 error at
fixed log SNRs. Neither that nor checkpoints are in the time.

What a run spent is measured inside it: wall-clock, CPU seconds of all its processes, and FLOPs of whole steps.
Wall-clock beside other work is too long: `clock=true` measures the seconds per step once more, all recipes in turn,
and tables and curves then take pictures x those.

Interrupt it as you like: each recipe x seed x length is a run folder under logs/quality, finished points are kept, and
the same command goes on.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from quality_sides.curves import RISING, Point, cost_to_reach, draw, final
from quality_sides.recipes import plan
from quality_sides.training import fit, point_file, train
from quality_sides.yardstick import Yardstick
from record import RESULTS, claim, figure, machine, missing, write

from diffusion_art.accel.memory import keep_memory

BASELINES = ("wikiart_eir", "wikiart_eir_unshuffle2")
BUDGETS = [3200, 6400, 12800, 25600, 51200]  # pictures
LONGER = {name: [*BUDGETS, 102400] for name in BASELINES}  # a baseline gets twice as many
GOALS = {"wall_s": 5.0, "flops": 3.0}
CLOCK_ROUNDS, CLOCK_IMAGES, CLOCK_WARM = 2, 1024, 2

Clocks = dict[str, dict[str, Any]]


def ours_at(size: int) -> str:
    """The recipe that is ours at a size in pixels."""
    return "quickstart32" if size <= 32 else "quickstart"


def main(options: dict[str, str]) -> None:
    short = options.pop("short", "false") == "true"
    clock = options.pop("clock", "false") == "true"
    size = int(options.pop("size", 32))
    recipes = _list(options.pop("recipes", ",".join((ours_at(size), *BASELINES[short:]))))
    seeds = [int(seed) for seed in _list(options.pop("seeds", "0"))]
    budgets = [int(budget) for budget in _list(options.pop("budgets", ""))]
    theirs = [int(budget) for budget in _list(options.pop("theirs", ""))]
    root = Path(options.pop("folder", "logs/quality"))
    suffix = options.pop("name", "")
    features, num_steps = options.pop("features", "efficientnet_lite0"), int(options.pop("steps", 10))
    if options:
        raise SystemExit(f"unknown: {' '.join(options)}")
    torch.set_float32_matmul_precision("high")
    keep_memory()

    def budgets_of(recipe: str) -> list[int]:
        if theirs and recipe in BASELINES:
            return theirs
        wanted = budgets or ([6400, 12800] if short else LONGER.get(recipe, BUDGETS))
        return sorted({*wanted, 2 * max(wanted)}) if short and recipe in BASELINES and not budgets else wanted

    if clock:
        measure_clock(recipes, size=size, root=root)
        return
    yardstick = Yardstick(size=size, features=features, num_steps=num_steps)
    planned = {
        name: [plan(name, size=size, seed=s, budgets=budgets_of(name), root=root) for s in seeds] for name in recipes
    }
    for position in range(len(seeds)):  # every recipe once before any twice
        for name in recipes:
            for run in planned[name][position]:
                train(run, partial(yardstick, guidance_scale=run.settings["guidance_scale"]))
    clocks = json.loads(file.read_text()) if (file := root / f"{size}px" / "clock.json").exists() else {}
    curves = {name: [curve_of(runs, clocks.get(name)) for runs in of_seeds] for name, of_seeds in planned.items()}
    command = f"python benchmarks/quality.py {' '.join(sys.argv[1:])}".strip()
    into = "_".join(["quality", *([f"{size}px"] if size != 32 else []), *([suffix] if suffix else [])])
    report(curves, yardstick, clocks=clocks, size=size, command=command, into=into)


def curve_of(runs: list[Any], clock: dict[str, Any] | None) -> list[Point]:
    """A recipe's points by budget, of one seed."""
    points = [json.loads(point_file(run.folder, step).read_text()) for run in runs for step in run.steps]
    if clock is not None:
        points = [point | {"wall_s": point["images"] * clock["s_per_image"]} for point in points]
    return sorted(points, key=lambda point: point["images"])


# ---------------------------------------------------------------------- the clock


def measure_clock(recipes: list[str], *, size: int, root: Path) -> None:
    """Seconds per training picture of each recipe, in `CLOCK_ROUNDS` rounds in turn: the median step of each size."""
    file = root / f"{size}px" / "clock.json"
    seen: dict[str, list[float]] = {name: [] for name in recipes}
    for _ in range(CLOCK_ROUNDS):
        for name in recipes:
            with tempfile.TemporaryDirectory() as folder:
                run = plan(name, size=size, seed=0, budgets=[CLOCK_IMAGES], root=Path(folder))[0]
                run.settings["trainer"]["max_steps"] += CLOCK_WARM
                _, points = fit(replace(run, steps=[]), lambda model: {})
            del points.step_s[:CLOCK_WARM], points.step_px[:CLOCK_WARM]
            seen[name].append(points.typical_step_s() / run.settings["data"]["global_batch_size"])
            print(f"{name}: {1 / seen[name][-1]:.1f} images/s", flush=True)
    old = json.loads(file.read_text()) if file.exists() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    new = {name: {"s_per_image": statistics.median(values), "rounds": values} for name, values in seen.items()}
    file.write_text(json.dumps(old | new, indent=1))


# ---------------------------------------------------------------------- the table


def report(
    curves: dict[str, list[list[Point]]],
    yardstick: Yardstick,
    *,
    clocks: Clocks,
    size: int,
    command: str,
    into: str,
) -> None:
    """Claims against each baseline, the final figures of every recipe, the picture of curves, all points as json."""
    rows: list[dict[str, Any]] = []
    about, ours = {"command": command, **machine()}, ours_at(size)
    for baseline in BASELINES:
        if ours in curves and baseline in curves:
            timed = {ours, baseline} <= clocks.keys()
            rows += claims(curves[ours], curves[baseline], baseline, timed=timed, about=about)
    floor = yardstick.floor()
    for metric, value in floor.items():
        rows.append(figure(f"{metric} of {size} px paintings, fresh ones against others: the floor", value))
    for name, of_seeds in curves.items():
        rows += final_figures(name, of_seeds)
    draw(curves, RESULTS / f"{into}.png", floor=floor, title=f"painter, {size} px, {about['cores']} cores")
    raw = RESULTS / "raw" / f"{into}.json"
    raw.parent.mkdir(exist_ok=True)
    raw.write_text(json.dumps({"floor": floor, "curves": curves, "clocks": clocks}, indent=1) + "\n")
    print(f"written to {write(into, rows)}")


def claims(
    ours: list[list[Point]], theirs: list[list[Point]], baseline: str, *, timed: bool, about: dict[str, Any]
) -> list[dict[str, Any]]:
    """For each axis: what ours spent until it had every final value of the baseline's, and until each."""
    rows = []
    units = {"wall_s": ("s", 1.0), "flops": ("PFLOP", 1e15)}
    targets = {metric: final(theirs, metric) for metric in ("style", "palette", "held_out", "fd")}
    for axis, (unit, scale) in units.items():
        where = f", {unit}" + ("" if timed or axis != "wall_s" else " beside other work")
        spent = final(theirs, axis)
        by_metric: dict[str, float] = {}
        for metric, target in targets.items():
            measure = f"to {metric} {target:.3g}{where}"
            costs = [cost_to_reach(curve, metric, target, axis) for curve in ours]
            if None in costs:
                rows.append(missing(f"{measure} ({baseline})", "not reached in these budgets"))
                continue
            by_metric[metric] = statistics.median(cost for cost in costs if cost is not None)
            ratio = spent / by_metric[metric]
            shown = {"ours": by_metric[metric] / scale, "peer": spent / scale, "peer_name": baseline, "ratio": ratio}
            rows.append(claim(measure, **shown, goal=f">= {GOALS[axis]:g}", holds=ratio >= GOALS[axis], **about))
        if len(by_metric) == len(targets):
            worst = max(by_metric.values())
            rows.append(
                claim(
                    f"to the baseline's final caption following and FD, all of them{where}",
                    ours=worst / scale,
                    peer=spent / scale,
                    peer_name=baseline,
                    ratio=spent / worst,
                    goal=f">= {GOALS[axis]:g}",
                    holds=spent / worst >= GOALS[axis],
                    seeds=len(ours),
                    **about,
                )
            )
    return rows


def final_figures(name: str, of_seeds: list[list[Point]]) -> list[dict[str, Any]]:
    """The last point of a recipe, medians over its seeds."""
    images = int(final(of_seeds, "images"))
    rows = [figure(f"{name}, {images:,} pictures: {metric}", final(of_seeds, metric)) for metric in RISING]
    rows.append(figure(f"{name}: PFLOP", final(of_seeds, "flops") / 1e15))
    return rows


def _list(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


if __name__ == "__main__":
    main({name: value for name, _, value in (word.partition("=") for word in sys.argv[1:])})
