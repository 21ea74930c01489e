"""The parts of `benchmarks/quality.py`: when a curve gets somewhere, which runs a recipe takes, going on."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from diffusion_art.callbacks.checkpoint import RunCheckpoints
from diffusion_art.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from quality_sides.curves import cost_to_reach, draw, final
from quality_sides.recipes import EXPERIMENTS, Planned, experiment_of, plan, settings_of
from quality_sides.training import Points, counter, point_file, train

CURVE = [
    {"images": 100, "cpu_s": 10.0, "style": 0.2, "fd": 40.0},
    {"images": 200, "cpu_s": 40.0, "style": 0.6, "fd": 10.0},
    {"images": 400, "cpu_s": 80.0, "style": 0.5, "fd": 8.0},
]


def test_cost_to_reach_a_value_is_read_off_the_curve():
    assert cost_to_reach(CURVE, "style", 0.4, "cpu_s") == pytest.approx(20.0)  # half-way, on the log axis
    assert cost_to_reach(CURVE, "fd", 25.0, "cpu_s") == pytest.approx(20.0)
    assert cost_to_reach(CURVE, "style", 0.6, "cpu_s") == pytest.approx(40.0)  # first reached, though lost again
    assert cost_to_reach(CURVE, "style", 0.1, "cpu_s") == 10.0  # at the first point already: no less is claimed
    assert cost_to_reach(CURVE, "style", 0.7, "cpu_s") is None
    assert cost_to_reach(CURVE, "fd", 7.0, "cpu_s") is None
    other = [{**point, "style": 2 * point["style"]} for point in CURVE]
    assert final([CURVE, other], "style") == pytest.approx(0.75)


def test_a_step_of_a_curriculum_takes_the_mean_of_its_sizes(tmp_path: Path):
    points = Points(Planned("x", {}, tmp_path, [4]), saving=RunCheckpoints(folder=str(tmp_path)), measure=lambda _: {})
    points.step_px, points.step_s = [32, 32, 64, 64, 64, 64], [0.3, 0.3, 0.6, 5.0, 0.6, 0.6]
    assert points.typical_step_s() == pytest.approx(0.5)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["quickstart", *(file.stem for file in EXPERIMENTS.glob("ablation/*.yaml"))])
def test_every_recipe_composes(recipe: str, tmp_path: Path):
    settings = settings_of(recipe, size=32, seed=1, steps=7, folder=tmp_path)
    assert settings["trainer"]["max_steps"] == 7
    assert settings["seed"] == 1
    assert settings["data"]["source"]["_target_"].endswith(".Painter")
    assert settings["data"]["image_size_px"] == settings["model"]["image_size_px"] == 32
    assert not settings["callbacks"]["samples"]


@pytest.mark.slow
def test_what_ends_with_the_run_is_fitted_to_each_budget(tmp_path: Path):
    runs = plan("quickstart32", size=32, seed=0, budgets=[640, 3200], root=tmp_path)
    assert [run.steps for run in runs] == [[20], [100]]
    assert [run.settings["lr_schedule"]["total_steps"] for run in runs] == [20, 100]
    aligned = plan("aligned", size=32, seed=0, budgets=[640, 3200], root=tmp_path)
    assert [run.settings["alignment"]["total_steps"] for run in aligned] == [20, 100]
    along = plan("constant", size=32, seed=0, budgets=[640, 3200], root=tmp_path)
    assert [run.steps for run in along] == [[20, 100]]
    longer = plan("constant", size=32, seed=0, budgets=[640, 3200, 6400], root=tmp_path)
    assert longer[0].folder == along[0].folder  # what is trained already counts
    adamw = plan("adamw", size=32, seed=0, budgets=[640], root=tmp_path)[0]
    assert adamw.folder.name != runs[0].folder.name  # named by what it trains
    assert experiment_of("adamw") == "ablation/adamw"
    assert experiment_of("quickstart") == "quickstart"
    with pytest.raises(UserError, match=r"recipes=nothing is no experiment and no ablation; these are adamw, "):
        experiment_of("nothing")


def tiny(folder: Path) -> Planned:
    settings = settings_of("constant", size=16, seed=0, steps=4, folder=folder)
    settings["model"]["backbone"] |= {
        "block_channels": [8, 16],
        "attention_sides": [4],
        "head_channels": 8,
        "norm_groups": 4,
    }
    settings["model"]["text_encoder"] |= {"width": 16, "layers": 1, "heads": 2, "vocab_size": 600}
    settings["data"] |= {
        "path": str(folder.parent / "painter"),
        "url": "shards",
        "num_workers": 0,
        "global_batch_size": 8,
    }
    settings["data"]["source"]["count"] = 64
    settings["paths"] |= {"data_dir": str(folder.parent), "run_dir": str(folder)}
    return Planned("constant", settings, folder, [2, 4])


@pytest.mark.slow
def test_a_stopped_run_goes_on_where_it_was_and_its_cost_adds_up(tmp_path: Path, monkeypatch):
    calls: list[int] = []

    def measure(model) -> dict:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"style": float(len(calls))}

    planned = tiny(tmp_path / "run")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(planned, measure)
    assert [path.name for path in sorted(planned.folder.glob("point_*.json"))] == ["point_000002.json"]
    train(planned, measure)
    train(planned, measure)  # nothing left to do
    assert len(calls) == 3
    first, last = (json.loads(point_file(planned.folder, step).read_text()) for step in (2, 4))
    assert (first["images"], last["images"]) == (16, 32)
    assert last["flops"] == pytest.approx(2 * first["flops"])
    assert 0 < first["wall_s"] < last["wall_s"]
    assert 0 < first["cpu_s"] < last["cpu_s"]
    assert (first["style"], last["style"]) == (1.0, 3.0)


def test_flops_of_attention_count():
    q = torch.rand(2, 4, 64, 16, requires_grad=True)
    with counter() as fused:
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    with counter() as plain:
        ((q @ q.transpose(2, 3)).softmax(3) @ q).sum().backward()
    assert plain.get_total_flops() == 3 * 2 * 2 * (2 * 4 * 64 * 64 * 16)
    assert fused.get_total_flops() == pytest.approx(plain.get_total_flops(), rel=0.2)  # the backward pass recomputes


def test_curves_are_drawn(tmp_path: Path):
    point = {"wall_s": 1.0, "cpu_s": 2.0, "flops": 1e12, "images": 10, "style": 0.5, "palette": 0.5, "held_out": 0.1}
    point |= {"fd": 3.0, "kid": 0.1, "val_x0": 0.02}
    curve = [point, {name: value * 2 for name, value in point.items()}]
    draw({"ours": [curve], "wikiart_eir": [curve, curve]}, tmp_path / "curves.png", floor={"fd": 1.0}, title="t")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert math.isclose(curve[1]["fd"], 6.0)
