"""What checkpoints hold of ours, written and read in one place."""

from __future__ import annotations

import pytest
import torch

from diffusion_art.checkpoints import read_checkpoint
from diffusion_art.errors import UserError
from diffusion_art.record import KEY, Record
from tests.golden.trace import HERE


def _same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("name", ["last.ckpt", "model.safetensors"])
def test_what_was_written_before_is_read_and_written_again_as_it_was(name):
    checkpoint = read_checkpoint(HERE / "old" / name)
    record = Record.of(checkpoint)
    assert record.step == 20
    assert record.config["name"] == "tiny"
    again: dict = {}
    record.write_to(again)
    assert _same(again[KEY], checkpoint[KEY])


def test_what_a_term_keeps_is_the_terms():
    record = Record.of(read_checkpoint(HERE / "old" / "last.ckpt"))
    assert record.more.keys() == {"alignment", "alignment_place"}
    assert Record.of(read_checkpoint(HERE / "old" / "model.safetensors")).ema_updates is None


def test_a_part_that_is_missing_is_named():
    with pytest.raises(UserError, match=r"a\.ckpt is incomplete: its 'diffusion_art' part has no ema"):
        Record.of({KEY: {"format": 1, "config": {}, "step": 3}}, origin="a.ckpt")
