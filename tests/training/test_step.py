"""One training step without a trainer: its draw and its losses in any number of parts and processes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion_art.config import build
from diffusion_art.diffusion.objective import NoWeighting, Objective
from diffusion_art.diffusion.times import Stratified
from diffusion_art.tensors import Batch
from diffusion_art.training.step import TrainingStep
from tests.fakes import toy_model

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
