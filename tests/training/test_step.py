"""One training step without a trainer: its draw and its losses in any number of parts and processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffusion_art.checkpoints import load_text_to_image
from diffusion_art.config import build
from diffusion_art.diffusion.objective import NoWeighting, Objective, Stratified
from diffusion_art.errors import UserError
from diffusion_art.tensors import Batch
from diffusion_art.training.module import DiffusionModule
from diffusion_art.training.step import TrainingStep
from diffusion_art.training.terms.alignment import Alignment
from diffusion_art.training.terms.perceptual import Perceptual
from diffusion_art.training.terms.teacher import Teacher
from diffusion_art.training.terms.term import Term
from tests.fakes import MODEL_CONFIG, SmallTower, toy_model
from tests.golden.trace import HERE

OLD = HERE / "old" / "last.ckpt"
PICTURES, NUMBER = 8, 3  # of a step, and which step


def step() -> TrainingStep:
    objective = Objective(times=Stratified(), weighting=NoWeighting())
    return TrainingStep(toy_model(), objective, caption_dropout=0.5).train()


def batches(*, parts: int, world: int = 1) -> list[Batch]:
    """Step number `NUMBER` as each process gets it, part after part."""
    images = torch.rand(PICTURES, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    share = PICTURES // (parts * world)
    return [
        Batch(
            images=images[first : first + share],
            captions=[f"picture {place}" for place in range(first, first + share)],
            keys=[""] * share,
            positions=list(range(NUMBER * PICTURES + first, NUMBER * PICTURES + first + share)),
            cursor=NUMBER * parts + part + 1,
        )
        for part in range(parts)
        for first in range(part * PICTURES // parts, (part + 1) * PICTURES // parts, share)
    ]


def gradients(training: TrainingStep, *, parts: int, world: int) -> dict[str, Tensor]:
    taken = batches(parts=parts, world=world)
    for batch in taken:
        drawn = training.drawn(batch, global_batch_size=PICTURES // parts, parts=parts)
        (training(drawn, step=0).total() / len(taken)).backward()
    return {name: p.grad for name, p in training.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("parts", "world"), [(2, 1), (4, 1), (8, 1), (1, 4), (2, 2)])
def test_a_step_is_the_same_in_any_number_of_parts_and_processes(parts, world):
    (whole,) = [step().drawn(batch, global_batch_size=PICTURES) for batch in batches(parts=1)]
    drawn = [
        step().drawn(batch, global_batch_size=PICTURES // parts, parts=parts)
        for batch in batches(parts=parts, world=world)
    ]
    assert torch.equal(torch.cat([part.t for part in drawn]), whole.t)
    assert torch.equal(torch.cat([part.eps for part in drawn]), whole.eps)
    assert [caption for part in drawn for caption in part.captions] == whole.captions
    assert 0 < whole.captions.count("") < PICTURES
    ours, wanted = gradients(step(), parts=parts, world=world), gradients(step(), parts=1, world=1)
    assert ours.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_an_alignment_is_found_where_older_configs_name_it():
    old = {"_target_": "diffusion_art.models.alignment.Alignment", "_partial_": True, "total_steps": 10}
    assert build(old).func.__module__ == "diffusion_art.training.terms.alignment"
    assert old["_target_"] == "diffusion_art.models.alignment.Alignment"


# ---------------------------------------------------------------------- terms and their states


def aligned(seed: int, **changes) -> Alignment:
    torch.manual_seed(seed)
    return Alignment(maps={"up": 16, "middle": 16}, tower=SmallTower(), total_steps=10, hidden=8, **changes)


def taught(by: str) -> Teacher:
    term = Teacher(run=OLD, guidance_scale=1.0, student=load_text_to_image(OLD))
    term.teacher_id = by
    return term


def step_of(*terms: Term) -> TrainingStep:
    objective = Objective(times=Stratified(), weighting=NoWeighting())
    return TrainingStep(toy_model(), objective, terms=terms)


def test_terms_combine_and_each_goes_on_from_its_own_state():
    terms = (aligned(0), taught("a"), Perceptual(tower=SmallTower(), layers=[]))
    saved = step_of(*terms).saved()
    assert set(saved["terms"]) == {"alignment", "teacher"}  # a perceptual loss has none
    older = {"alignment": saved["terms"]["alignment"]["weights"], "teacher": "a"}
    for ours in (saved, older, {**older, "alignment_place": "middle"}):
        again = aligned(1)
        assert not torch.equal(again.projection[0].weight, terms[0].projection[0].weight)
        step_of(again, taught("a")).resume(ours)
        assert torch.equal(again.projection[0].weight, terms[0].projection[0].weight)


MADE: dict[str, Callable[[], Term]] = {
    "aligned": lambda: aligned(0),
    "aligned up": lambda: aligned(0, layer="up"),
    "taught by a": lambda: taught("a"),
    "taught by b": lambda: taught("b"),
}


@pytest.mark.parametrize(
    ("terms", "before", "says"),
    [
        ([], ["aligned"], "with the term alignment .* the alignment of its config.yaml"),
        (["aligned"], [], "without the term alignment .* resume it with alignment=none"),
        ([], ["taught by a"], "with the term teacher"),
        (["taught by a"], [], "without the term teacher .* its own experiment"),
        (["taught by b"], ["taught by a"], "was taught by a, and that of teacher.run is b"),
        (["aligned"], ["aligned up"], "with its up aligned, and here it is middle"),
        (["aligned", "taught by a"], ["aligned"], "without the term teacher"),
    ],
)
def test_a_run_does_not_go_on_with_other_terms(terms: list[str], before: list[str], says: str):
    saved = step_of(*(MADE[name]() for name in before)).saved()
    with pytest.raises(UserError, match=says):
        step_of(*(MADE[name]() for name in terms)).resume(saved)


def test_weights_of_a_term_that_has_ended_have_gradients_of_zero_where_each_needs_one():
    step = step_of(aligned(0, stop_at_fraction=0.4))
    (batch,) = batches(parts=1)
    losses = step(step.drawn(batch, global_batch_size=PICTURES), step=4, every_weight=True)
    assert losses.by_name()["alignment"].isnan()
    losses.total().backward()
    assert all(p.grad is not None and not p.grad.any() for p in step.terms.parameters())
    assert not step(step.drawn(batch, global_batch_size=PICTURES), step=4).idle


def test_units_that_a_network_drops_belong_to_the_pictures_and_not_to_what_was_drawn_before():
    """Or a resumed run, which has drawn nothing yet, drops those of its first steps, and all processes the same."""
    dropping = MODEL_CONFIG["backbone"] | {"dropout": 0.5}
    training = TrainingStep(
        toy_model(backbone=dropping), Objective(times=Stratified(), weighting=NoWeighting())
    ).train()

    def loss(batch: Batch) -> Tensor:
        return training(training.drawn(batch, global_batch_size=PICTURES), step=0).per_picture

    first, second = batches(parts=1, world=2)
    before = loss(first)
    assert torch.equal(loss(first), before)
    rolled = replace(second, images=first.images, captions=first.captions)
    drawn = [torch.rand(4) for batch in (first, rolled) if training.drawn(batch, global_batch_size=PICTURES)]
    assert not torch.equal(*drawn)


def test_a_batch_as_a_loader_gives_it_is_one_in_floats():
    """In a loop of one's own nobody else makes floats of its bytes."""
    (batch,) = batches(parts=1)
    bytes_ = ((batch.images + 1) * 127.5).round().to(torch.uint8)
    loaded, moved = replace(batch, images=bytes_), replace(batch, images=bytes_.float().div(127.5).sub(1))
    for given in ("drawn", "validated"):
        more = {"global_batch_size": PICTURES} if given == "drawn" else {}
        one, other = (getattr(step(), given)(each, **more) for each in (loaded, moved))
        torch.testing.assert_close(one.x_0, other.x_0, rtol=0, atol=0)
        assert one.images.abs().max() <= 1


def test_a_module_is_made_of_a_checkpoint_as_its_config_has_it():
    with pytest.raises(UserError, match="strict: a module is built as the config in"):
        DiffusionModule.load_from_checkpoint(OLD, strict=False, weights_only=True)
    with pytest.raises(UserError, match=r"last\.ckpt is of an earlier version, whose .*; load_text_to_image\(path\)"):
        DiffusionModule.load_from_checkpoint(OLD, strict=True)
