"""`training/build.py`: whose mistake an error of a run is."""

from __future__ import annotations

import pytest

from diffusion_art.training.build import is_lightnings

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
