"""Representation alignment in training: when it is on, what it saves, and that a resume is the same to the bit."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from diffusion_art.checkpoints import find_checkpoint, load_text_to_image
from diffusion_art.diffusion.objective import NoWeighting, Objective, Stratified
from diffusion_art.launching.fit import quieten
from diffusion_art.record import KEY
from diffusion_art.runs import load_run
from diffusion_art.tensors import Batch
from diffusion_art.training.averages.ema import Ema
from diffusion_art.training.module import DiffusionModule
from diffusion_art.training.muon import Muon
from diffusion_art.training.optim import Constant
from diffusion_art.training.step import TrainingStep
from diffusion_art.training.terms.alignment import Alignment
from diffusion_art.training.terms.term import Term
from tests.fakes import JIT_CONFIG, SmallTower, tiny_clip, toy_model

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
STEPS = 5
PROJECTION = "step.terms.alignment.projection."


def module(*terms: Term, model: dict | None = None) -> DiffusionModule:
    objective = Objective(times=Stratified(), weighting=NoWeighting())
    step = TrainingStep(toy_model(**(model or {})).train(), objective, terms=terms)
    return DiffusionModule(
        step, optimizer=partial(Muon, lr=1e-3), lr_schedule=Constant(warmup_steps=0), ema=partial(Ema, decay=0.9)
    )


def aligned(tower: SmallTower, *, model: dict | None = None, **changes) -> DiffusionModule:
    torch.manual_seed(0)
    settings = {"total_steps": STEPS, "stop_at_fraction": 0.4, "hidden": 8} | changes
    return module(Alignment(maps={"up": 16, "middle": 16}, tower=tower, **settings), model=model)


def fit(made: DiffusionModule, *, steps: int = STEPS, accumulate: int = 1) -> Trainer:
    generator = torch.Generator().manual_seed(1)
    batches = [
        Batch(
            images=torch.rand(4, 3, 16, 16, generator=generator) * 2 - 1,
            captions=["red", "", "blue", "green"],
            keys=list("abcd"),
            positions=list(range(4 * k, 4 * k + 4)),
            cursor=k + 1,
        )
        for k in range(STEPS * accumulate)
    ]
    quieten()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(made, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return trainer


def state(made: DiffusionModule) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in made.named_parameters()}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_tower_is_asked_until_its_share_of_the_steps_and_then_never_again(accumulate):
    tower = SmallTower()
    made = aligned(tower)
    before = state(made)
    fit(made, steps=2, accumulate=accumulate)
    assert tower.calls == 2 * accumulate
    after_two = state(made)
    assert all(not torch.equal(before[name], p) for name, p in after_two.items() if name.startswith(PROJECTION))
    assert f"{PROJECTION}0.weight" in after_two

    tower = SmallTower()
    made = aligned(tower)
    trainer = fit(made, accumulate=accumulate)
    assert trainer.global_step == STEPS
    assert tower.calls == 2 * accumulate
    whole = state(made)
    assert all(torch.equal(after_two[name], whole[name]) for name in whole if name.startswith(PROJECTION))
    assert not torch.equal(
        after_two["step.model.backbone.net.conv_in.weight"], whole["step.model.backbone.net.conv_in.weight"]
    )
    assert math.isnan(trainer.callback_metrics["train/alignment"])  # and not the last value for ever


@pytest.mark.parametrize(
    ("model", "place"),
    [({}, "middle"), ({}, "up"), ({"backbone": JIT_CONFIG}, "middle")],
    ids=["unet", "unet up", "jit"],
)
def test_a_weight_of_next_to_nothing_is_the_run_without(model, place):
    """The way through the backbone with a map, and the optimiser with the projection, change nothing else."""
    with_it, without = aligned(SmallTower(), model=model, weight=1e-30, layer=place), module(model=model)
    for made in (with_it, without):
        fit(made)
    ours, theirs = state(with_it), state(without)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert set(ours) - set(theirs) == {
        f"{PROJECTION}{place}.{kind}" for place in (0, 2, 4) for kind in ("weight", "bias")
    }


def test_muon_gets_the_matrices_of_the_projection_and_adam_its_biases():
    made = aligned(SmallTower())
    groups = made.configure_optimizers()["optimizer"].param_groups
    projection = made.step.terms["alignment"].projection
    for linear in (projection[0], projection[2], projection[4]):
        (of_weight,) = [group for group in groups if any(p is linear.weight for p in group["params"])]
        (of_bias,) = [group for group in groups if any(p is linear.bias for p in group["params"])]
        assert of_weight["hidden"]
        assert not of_bias["hidden"]
    assert not any("alignment" in name for name in made.ema.shadow)


# ---------------------------------------------------------------------- the real command


@pytest.fixture
def tiny(painter_shards) -> list[str]:
    """The command, short of run=NAME: twelve steps on 16 px pictures."""
    return [
        *("+experiment=quickstart32", "+debug=tiny", "data.source=null", f"data.path={painter_shards}"),
        *("data.url=shards", "data.num_workers=0", "callbacks.progress=null", "callbacks.samples=null"),
        *("callbacks.checkpoints.every_n_steps=3", "callbacks.checkpoints.keep_last=-1"),
    ]


@pytest.fixture
def clip(tmp_path) -> list[str]:
    """Half of the run with a small CLIP's image tower."""
    return [
        *("alignment=open_clip", f"alignment.tower.model=local-dir:{tiny_clip(tmp_path / 'clip')}"),
        *("alignment.tower.pretrained=null", "alignment.stop_at_fraction=0.5", "alignment.hidden=16"),
    ]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(find_checkpoint(path), weights_only=True)
    found = {f"raw {name}": value for name, value in saved["state_dict"].items()}
    found |= {f"ema {name}": value for name, value in saved[KEY]["ema"].items()}
    found |= {f"alignment {name}": value for name, value in saved[KEY]["terms"]["alignment"]["weights"].items()}
    for index, kept in saved["optimizer_states"][0]["state"].items():
        found |= {f"adam {index} {name}": torch.as_tensor(value) for name, value in kept.items()}
    return found


@pytest.mark.slow
def test_a_run_resumes_exactly_on_both_sides_of_the_end_and_paints_as_any_other(tiny, clip, run_here, tmp_path):
    """Under a curriculum whose pictures change size while it is on."""
    tiny = [*tiny, *clip, "data.curriculum.stages=[{until: 0.25, shrink: 2}]"]
    status, said, complaints = run_here("train", *tiny, "run=whole")
    assert status == 0, said + complaints
    runs = tmp_path / "logs" / "tiny"
    metrics = pd.read_csv(runs / "whole" / "metrics.csv").set_index("step")
    assert metrics["train/alignment"].notna().tolist() == [True] * 6 + [False] * 6
    assert metrics["train/alignment"][5] < metrics["train/alignment"][0]
    whole = weights_of(runs / "whole")
    for step in (3, 9):
        again = [f"run=from_{step}", f"ckpt_path={runs}/whole/checkpoints/step_{step:08d}.ckpt"]
        assert run_here("train", *tiny, *again)[0] == 0
        resumed = weights_of(runs / f"from_{step}")
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    assert not any("alignment" in name for name in whole if not name.startswith("alignment "))
    model = load_text_to_image(runs / "whole", weights="raw")
    assert all(torch.equal(p, whole[f"raw model.{name}"]) for name, p in model.named_parameters())
    assert load_run(runs / "whole")(["red"]).shape == (1, 3, 16, 16)


@pytest.mark.slow
def test_what_was_trained_with_it_is_resumed_with_it_and_the_other_way_round(tiny, clip, run_here, tmp_path):
    def refused(*arguments: str) -> str:
        status, said, complaints = run_here("train", *tiny, *arguments)
        assert status == 1, said + complaints
        assert "Traceback" not in said + complaints
        (error,) = [line for line in complaints.splitlines() if line.startswith("error: ")]
        return error

    short = ["trainer.max_steps=3", "trainer.val_check_interval=3", "data.val_samples=8"]
    for arguments in (["run=with", *clip], ["run=without", "alignment=none"]):
        status, said, complaints = run_here("train", *tiny, *short, *arguments)
        assert status == 0, said + complaints
    assert "with the term alignment" in (said := refused("run=with", "ckpt_path=last", "alignment=none"))
    assert "the alignment of its config.yaml" in said
    assert "without the term alignment" in (said := refused("run=without", "ckpt_path=last", *clip))
    assert "alignment=none" in said
    said = refused("run=with", "ckpt_path=last", *clip, "alignment.hidden=8")
    assert "projection.0.weight has shape [16, 32], and here it is [8, 32]" in said
    said = refused("run=with", "ckpt_path=last", *clip, "alignment.layer=up")
    assert "with its middle aligned, and here it is up. Resume it with alignment.layer=middle." in said
    assert "trainer.max_steps" in refused("trainer.max_steps=-1", "lr_schedule=constant", *clip)
