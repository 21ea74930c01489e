"""In how many parts a step is taken: `find_batch_size`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from diffusion_art.checkpoints import read_plain
from diffusion_art.errors import UserError
from diffusion_art.record import KEY
from diffusion_art.training.memory.batch_size import find_batch_size
from diffusion_art.training.memory.parts import fitting_part, memory_limit

log = logging.getLogger(__name__)


def settle_batch_size(settings: dict[str, Any], *, checkpoint: Path | None, world: int) -> None:
    """Split the pictures of a step into parts that fit: `auto` by what they will take, `true` by trying. A resumed run
    keeps the parts it has, in which its place in the data is counted.

    Raises:
        UserError: another value, or `true` in processes started by others, each of which would find its own size.
    """
    data, trainer, asked = settings["data"], settings["trainer"], settings["find_batch_size"]
    settings["find_batch_size"] = False
    if asked not in (True, "auto"):
        raise UserError(f"find_batch_size={asked} is not one of false, true and auto.")
    if asked is True and {"TORCHELASTIC_RUN_ID", "SLURM_NTASKS"} & os.environ.keys():
        raise UserError(
            "find_batch_size=true asks one process, not several. Take find_batch_size=auto, which measures nothing; or "
            "run once without torchrun or SLURM, and give what it chooses: data.global_batch_size=... "
            "trainer.accumulate_grad_batches=..."
        )
    pictures = data["global_batch_size"] * trainer["accumulate_grad_batches"]
    if checkpoint is not None:
        trained = read_plain(checkpoint)[KEY]["config"]
        size, parts = trained["data"]["global_batch_size"], trained["trainer"]["accumulate_grad_batches"]
        if size * parts == pictures:  # else the data module says what does not agree
            data["global_batch_size"], trainer["accumulate_grad_batches"] = size, parts
            log.info("find_batch_size: resumed, so the batch size stays that of %s", checkpoint)
        return
    if asked == "auto":
        _settle_parts(settings, pictures=pictures, world=world)
        return
    found = find_batch_size(settings, world=world)
    data["global_batch_size"] = found.size * world
    trainer["accumulate_grad_batches"] = pictures // data["global_batch_size"]
    log.info(
        "find_batch_size: data.global_batch_size=%d trainer.accumulate_grad_batches=%d, %d pictures per step as "
        "before; %d at once, %.3g GB at most with %.3g GB for each picture, of %.3g GB",
        data["global_batch_size"],
        trainer["accumulate_grad_batches"],
        pictures,
        found.size,
        found.peaks.get(found.size, 0) / 1e9,
        found.per_picture / 1e9,
        found.limit / 1e9,
    )


def _settle_parts(settings: dict[str, Any], *, pictures: int, world: int) -> None:
    """`find_batch_size=auto`: parts no larger than asked for. Without a GPU or a limit they are as asked for."""
    limit = memory_limit(settings)
    if limit is None:
        return
    size, foreseen = fitting_part(settings, limit=limit, world=world)
    data, trainer = settings["data"], settings["trainer"]
    data["global_batch_size"] = size * world
    trainer["accumulate_grad_batches"] = pictures // data["global_batch_size"]
    log.info(
        "find_batch_size: %d pictures per step in %d part(s): data.global_batch_size=%d, %.3g GB foreseen of %.3g GB",
        pictures,
        trainer["accumulate_grad_batches"],
        data["global_batch_size"],
        foreseen / 1e9,
        limit / 1e9,
    )
