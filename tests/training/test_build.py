"""`training/build.py`: which objective goes with which model, and whose mistake an error of a run is."""

from __future__ import annotations

from typing import Any

import pytest

from diffusion_art.config import shipped
from diffusion_art.errors import UserError
from diffusion_art.training.build import build_step, is_lightnings

THEIRS, OURS = "lightning.pytorch.callbacks.finetuning", "diffusion_art.callbacks.throughput"


def raised_through(*modules: str) -> TypeError:
    """An error that functions of these modules were left by, the last one first."""

    def go_on(rest: tuple[str, ...]) -> None:
        if not rest:
            raise TypeError("no such thing")
        space = {"__name__": rest[0], "go_on": go_on}
        exec("def called(rest): go_on(rest)", space)
        space["called"](rest[1:])

    with pytest.raises(TypeError) as caught:
        go_on(modules)
    return caught.value


@pytest.mark.parametrize(
    ("modules", "told"),
    [
        (["lightning.pytorch.trainer", THEIRS, "torch.nn"], True),
        ([OURS, "lightning.pytorch.trainer", THEIRS], True),
        ([THEIRS, OURS], False),  # ours, which theirs called
        (["lightning.pytorch.trainer", OURS], False),
        (["lightning.pytorch.trainer"], False),
    ],
)
def test_only_mistakes_of_lightnings_own_callbacks_are_told_as_theirs(modules, told):
    assert is_lightnings(raised_through(*modules)) is told


def settings_of(model: str, objective: str, **others: Any) -> dict[str, Any]:
    """As much of a run's config as is read before its model is built."""
    return {"model": shipped(f"model/{model}"), "objective": shipped(f"objective/{objective}"), **others}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            settings_of("text_to_image", "reconstruction"),
            "Reconstruction is for an autoencoder, .* objective=logit_normal",
        ),
        (settings_of("text_to_image", "contrastive"), "Contrastive is for a CLIP, and this run trains a text-to-image"),
        (settings_of("text_to_image", "distillation"), "asks a teacher, and this run has none"),
        (settings_of("text_to_image", "min_snr", teacher={"run": "x"}), "its objective asks none"),
        (settings_of("autoencoder", "sigmoid"), "Objective is for a text-to-image model, .* objective=reconstruction"),
        (settings_of("clip", "distillation"), "Distillation is for a text-to-image model, .* objective=contrastive"),
        (settings_of("clip", "contrastive", compile=False, noise=shipped("noise/assigned")), "a CLIP has noise=iid"),
    ],
)
def test_an_objective_or_noise_of_another_kind_of_model_is_refused(settings, says):
    with pytest.raises(UserError, match=says):
        build_step(settings)
