"""Where in a run a checkpoint of before stands."""

from __future__ import annotations

import re

import pytest

from diffusion_art.errors import UserError
from diffusion_art.training.resume import place_loops


@pytest.mark.parametrize("parts", [1, 4])
def test_a_file_that_does_not_name_its_batches_to_a_step_is_resumed_with_as_many(parts):
    """With fewer a run waited for ever, with more it saw pictures again."""
    progress = {"total": {"completed": 6, "processed": 6}}
    loops = {"fit_loop": {"epoch_loop.batch_progress": progress}}
    saved = {"global_step": 3, "loops": loops, "StreamDataModule": {"cursor": 6}}
    told = "the checkpoint was trained with trainer.accumulate_grad_batches=2, this run has "
    with pytest.raises(UserError, match=re.escape(f"{told}{parts}")):
        place_loops(saved, batches_per_step=parts, validates=lambda batches: False)
    assert loops["fit_loop"]["epoch_loop.batch_progress"] is progress
    place_loops(saved, batches_per_step=2, validates=lambda batches: False)
    assert loops["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"] == 6
