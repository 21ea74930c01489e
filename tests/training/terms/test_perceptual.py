"""The perceptual loss: by hand, when it counts, where its gradients go, and beside other terms in a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from diffusion_art.checkpoints import find_checkpoint
from diffusion_art.config import config_dir
from diffusion_art.diffusion.denoiser import image_scales
from diffusion_art.diffusion.objective import NoWeighting, Objective, Stratified
from diffusion_art.errors import UserError
from diffusion_art.launching.settle import settle
from diffusion_art.models.image_tower import Lite0, OpenClipImage
from diffusion_art.record import KEY
from diffusion_art.tensors import Batch
from diffusion_art.training.build import build_step
from diffusion_art.training.step import Example, TrainingStep
from diffusion_art.training.terms.alignment import Alignment
from diffusion_art.training.terms.perceptual import Perceptual
from tests.fakes import JIT_CONFIG, SmallTower, tiny_clip, toy_model, toy_run

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(4, 3, 16, 16, generator=GENERATOR) * 2 - 1
OTHERS = torch.rand(4, 3, 16, 16, generator=GENERATOR) * 2 - 1


def step_with(*terms, **model) -> TrainingStep:
    return TrainingStep(toy_model(**model), Objective(times=Stratified(), weighting=NoWeighting()), terms=terms)


def example(step: TrainingStep, t: Tensor) -> Example:
    batch = Batch(
        images=IMAGES, captions=["red", "", "blue", "green"], keys=list("abcd"), positions=[0, 1, 2, 3], cursor=1
    )
    return replace(step.drawn(batch, global_batch_size=4), t=t)


# ---------------------------------------------------------------------- the loss


def test_features_are_compared_by_their_directions_at_each_position():
    term = Perceptual(tower=SmallTower(), layers=[0], semantics=0.5)
    ours, wanted = (torch.nn.functional.avg_pool2d(images, 2) for images in (OTHERS, IMAGES))
    near = 2 - 2 * torch.cosine_similarity(ours, wanted, dim=1).mean((1, 2))
    kind = 1 - torch.cosine_similarity(term.tower(OTHERS), term.tower(IMAGES), dim=1).mean((1, 2))
    torch.testing.assert_close(term.distances(OTHERS, IMAGES), near + 0.5 * kind)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equal_pictures_are_no_distance_apart_and_noisier_ones_further(precision):
    term = Perceptual(tower=Lite0(stride=16, precision=precision))
    assert term.distances(IMAGES, IMAGES).eq(0).all()
    near, far = (term.distances(IMAGES + scale * OTHERS, IMAGES) for scale in (0.05, 0.5))
    assert (near > 0).all()
    assert (near < far).all()


@pytest.mark.parametrize("prediction", ["Flow", "V", "X0", "Edm"])
@pytest.mark.parametrize("codec", ["Pixel", "Unshuffle4"])
def test_an_answer_that_hits_its_target_stands_for_the_picture(prediction, codec):
    step = step_with(
        backbone=JIT_CONFIG,
        prediction={"_target_": f"diffusion_art.diffusion.predictions.{prediction}"},
        codec={"_target_": f"diffusion_art.models.codec.{codec}"},
    )
    asked = example(step, torch.tensor([0.1, 0.3, 0.5, 0.7]))
    alpha, sigma = image_scales(step.model.schedule, asked.t)
    right = step.model.prediction.target(asked.x_0, asked.eps, alpha, sigma)
    torch.testing.assert_close(step._x_0_hat(asked, right), IMAGES, atol=1e-5, rtol=0)


def test_only_low_noise_counts():
    step = step_with(Perceptual(tower=SmallTower(), layers=[], max_t=0.6, weight=2.0))

    def loss(*t: float) -> Tensor:
        weight, found = step(example(step, torch.tensor(t)), step=0).terms["perceptual"]
        assert weight == 2.0
        return found

    assert loss(0.61, 0.7, 0.9, 1.0) == 0
    alone = loss(0.9, 0.6, 0.9, 0.9)
    assert alone > 0
    torch.testing.assert_close(loss(0.3, 0.6, 0.9, 0.9), loss(0.3, 0.9, 0.9, 0.9) + alone)
    assert not step(example(step, torch.full((4,), 0.5))).terms  # validation asks the objective alone


def test_it_starts_at_its_share_of_the_run():
    step = step_with(Perceptual(tower=SmallTower(), layers=[0], start_at_fraction=0.29, total_steps=100))
    asked = example(step, torch.full((4,), 0.4))
    assert not step(asked, step=28).terms
    assert set(step(asked, step=29).terms) == {"perceptual"}
    assert set(step_with(Perceptual(tower=SmallTower(), layers=[0]))(asked, step=0).terms) == {"perceptual"}


def test_gradients_reach_the_network_through_the_tower_and_stop_there():
    tower = Lite0(stride=16)
    step = step_with(Perceptual(tower=tower)).train()
    found = step(example(step, torch.full((4,), 0.4)), step=0).terms["perceptual"][1]
    found.backward()
    reached = {name for name, p in step.named_parameters() if p.grad is not None and p.grad.any()}
    for part in ("conv_in", "conv_out", "mid_block", "text_encoder"):
        assert any(part in name for name in reached), part
    assert all(p.grad is None for p in tower.parameters())
    assert not tower.training
    assert not any("tower" in name for name, _ in step.named_parameters())


def test_training_on_it_brings_the_answer_nearer():
    step = step_with(Perceptual(tower=SmallTower(), layers=[0], max_t=1.0)).train()
    optimizer = torch.optim.Adam(step.parameters(), lr=3e-3)
    asked, losses = example(step, torch.tensor([0.2, 0.4, 0.6, 0.8])), []
    for _ in range(30):
        loss = step(asked, step=0).terms["perceptual"][1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_clips_tower_has_layers_too(tmp_path):
    tower = OpenClipImage(model=f"local-dir:{tiny_clip(tmp_path)}")
    term = Perceptual(tower=tower, layers=[])
    assert torch.equal(tower.maps(IMAGES, [])[0], tower(IMAGES))
    assert (term.distances(OTHERS, IMAGES) > 0).all()
    with pytest.raises(UserError, match=r"layers=\[0\] must be .* it has none"):
        Perceptual(tower=tower, layers=[0])  # its only block is the last


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight": 0.0}, "perceptual.weight=0.0 must be positive.*perceptual=none"),
        ({"max_t": 0.0}, "perceptual.max_t=0.0"),
        ({"max_t": 1.5}, "perceptual.max_t=1.5"),
        ({"semantics": -1.0}, "perceptual.semantics=-1.0"),
        (
            {"start_at_fraction": 1.0, "total_steps": 10},
            "start_at_fraction=1.0 must be at least 0 and below",
        ),
        ({"start_at_fraction": -0.5}, "perceptual.start_at_fraction=-0.5 must be"),
        (
            {"start_at_fraction": 0.5},
            "=0.5 is a share of the run, and trainer.max_steps=-1 sets it no",
        ),
        ({"layers": [4]}, r"layers=\[4\] must be rising numbers .*: 0, 1, 2, 3"),
        ({"layers": [2, 1]}, r"layers=\[2, 1\] must be rising"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, says):
    with pytest.raises(UserError, match=says):
        Perceptual(tower=Lite0(stride=16), **changes)


# ---------------------------------------------------------------------- beside others


def test_terms_add_up_by_their_weights():
    alignment = Alignment(
        maps={"middle": 16}, tower=SmallTower(), total_steps=10, stop_at_fraction=0.5, hidden=8, weight=0.25
    )
    step = step_with(alignment, Perceptual(tower=SmallTower(), layers=[0], weight=3.0))
    asked = example(step, torch.full((4,), 0.4))
    losses = step(asked, step=4)
    aligned, perceptual = losses.terms["alignment"][1], losses.terms["perceptual"][1]
    torch.testing.assert_close(losses.total(), losses.per_picture.mean() + 0.25 * aligned + 3.0 * perceptual)
    torch.testing.assert_close(step_with()(asked, step=4).per_picture, losses.per_picture)
    assert set(step(asked, step=5).terms) == {"perceptual"}  # the alignment has ended
    with pytest.raises(UserError, match="given twice"):
        step_with(Perceptual(tower=SmallTower(), layers=[]), Perceptual(tower=SmallTower(), layers=[]))


def test_the_same_tower_is_held_once(tmp_path):
    def step(*overrides: str) -> TrainingStep:
        asked = ["+experiment=quickstart32", "+debug=tiny", "perceptual=features", *overrides]
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return build_step(settle(compose("train", overrides=asked), tmp_path))

    both = step().terms
    assert both["alignment"].tower is both["perceptual"].tower
    other = step("perceptual.tower.stride=32").terms
    assert other["alignment"].tower is not other["perceptual"].tower


def weights_of(run: Path) -> dict[str, Tensor]:
    saved = torch.load(find_checkpoint(run), weights_only=True)
    groups = {
        "raw": saved["state_dict"],
        "ema": saved[KEY]["ema"],
        "alignment": saved[KEY]["terms"]["alignment"]["weights"],
    }
    return {f"{group} {name}": value for group, values in groups.items() for name, value in values.items()}


@pytest.mark.slow
def test_a_student_with_alignment_and_perceptual_loss_resumes_exactly(painter_shards, run_here, tmp_path):
    settings = [
        *("+experiment=distill", f"teacher.run={toy_run(tmp_path / 'teacher')}", "alignment=features"),
        *("perceptual=features", "data.source=null", f"data.path={painter_shards}", "data.image_size_px=16"),
        *("data.url=shards", "data.num_workers=0", "data.global_batch_size=8", "data.val_samples=8"),
        *("trainer.max_steps=4", "trainer.val_check_interval=4", "trainer.log_every_n_steps=1"),
        *("callbacks.checkpoints.every_n_steps=2", "callbacks.checkpoints.keep_last=-1"),
        *("callbacks.samples=null", "callbacks.progress=null", "callbacks.loss_plot=null"),
    ]
    status, said, complaints = run_here("train", *settings, "run=whole")
    assert status == 0, said + complaints
    whole = tmp_path / "logs" / "distill" / "whole"
    columns = (whole / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "train/alignment", "train/perceptual"} <= set(columns)
    resumed = [f"ckpt_path={whole}/checkpoints/step_00000002.ckpt", "run=resumed"]
    status, said, complaints = run_here("train", *settings, *resumed)
    assert status == 0, said + complaints
    ours, theirs = weights_of(whole), weights_of(tmp_path / "logs" / "distill" / "resumed")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    saved = torch.load(find_checkpoint(whole), weights_only=True)[KEY]  # a run can go on without what is not in it
    assert not any("tower" in name or "perceptual" in name for name in saved)
