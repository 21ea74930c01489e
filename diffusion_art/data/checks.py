"""Whether what is read from is what a run asks for: one function for each thing that could differ."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.shards.recaptioning import told_template
from diffusion_art.sizes import refuse_fractions
from diffusion_art.streaming.eir.client import DIGEST as EIR_DIGEST
from diffusion_art.streaming.wire import StreamInfo
from diffusion_art.units import counted

log = logging.getLogger(__name__)


def check_has_pictures(info: StreamInfo, *, global_batch_size: int) -> None:
    """There is something to train on; warns of less than a batch. An EIR server need not say how many."""
    if not info.splits.get("train", info.digest == EIR_DIGEST):
        raise UserError(f"the data set `{info.name}` has no training pictures: {info.splits}.")
    if 0 < info.splits.get("train", 0) < global_batch_size:
        log.warning(
            "data.global_batch_size=%d is more than the %s to train on: a step sees some of them several times",
            global_batch_size,
            counted(info.splits["train"]),
        )


def check_shared(global_batch_size: int, *, processes: int) -> None:
    """All processes take the same share of a batch."""
    if global_batch_size % processes:
        raise UserError(
            f"a global batch of {global_batch_size} pictures cannot be shared by {processes} processes. "
            f"Set data.global_batch_size to a multiple of {processes}."
        )


def check_captions(info: StreamInfo, *, asked: str | None, url: str | list[str]) -> None:
    """A server that was started by others makes the captions as it was told to; None asks for any."""
    given = info.caption_template
    if asked is not None and given != asked:
        again = shlex.quote(f"caption_template={asked}")
        raise UserError(
            f"the stream server at {url} makes its captions by {given!r}, and this run asks for "
            f"data.caption_template={asked!r}. Leave that out, or start the server again: "
            f"`python -m diffusion_art.stream data.path=FOLDER {again}`"
        )


def check_latents(info: StreamInfo, *, image_size_px: int) -> None:
    """Latents were made of pictures of one size."""
    if info.image_size_px != image_size_px:
        raise UserError(
            f"the latents of {info.name} are of pictures of {info.image_size_px} px, and this run has "
            f"data.image_size_px={image_size_px}: give it data.image_size_px={info.image_size_px}."
        )


def check_buckets(info: StreamInfo, *, sizes_px: Iterable[int], global_batch_size: int) -> None:
    """Sides of buckets are whole pixels at all `sizes_px`. Warns of buckets so small that a batch shows their pictures
    several times.
    """
    for asked in sizes_px:
        refuse_fractions(info.buckets, stored_px=info.image_size_px, asked_px=asked)
    counts = info.buckets.get("train", {})
    small = [name for name, samples in counts.items() if samples < global_batch_size]
    if small:
        log.warning(
            "%d of %d buckets have fewer training pictures than a batch of %d, which then shows some of them "
            "several times (%s). That does not change how often a picture is seen in the whole run. "
            "Larger steps (bucket_step_px) or a smaller bucket_max_ratio give fewer buckets",
            len(small),
            len(counts),
            global_batch_size,
            ", ".join(f"{name}: {counts[name]}" for name in small[:5])
            + (f" and {len(small) - 5} more" if len(small) > 5 else ""),
        )


_ORDER = {  # what a place in the data is counted by, and where it is set
    "seed": "seed",
    "global_batch_size": "data.global_batch_size",
    "accumulate_grad_batches": "trainer.accumulate_grad_batches",
}


def check_resumed(saved: Mapping[str, Any], info: StreamInfo, *, ours: Mapping[str, int]) -> None:
    """The state of a checkpoint goes on with the order it was counted in; `ours` is this run's. Other captions it may
    have, and it is told.
    """
    for field, key in _ORDER.items():
        if saved.get(field, ours[field]) != ours[field]:
            raise UserError(
                f"the checkpoint was trained with {key}={saved[field]}, this run has {ours[field]}: its place in the "
                f"data would be lost. Resume with {key}={saved[field]}."
            )
    if saved["digest"] not in (None, info.digest):
        raise UserError(
            f"the checkpoint was trained on data set `{saved['name']}` ({saved['digest'][:12]}), this run reads "
            f"`{info.name}` ({info.digest[:12]}), whose pictures have another order. Resume with the data.path or "
            "data.url it was trained on; or begin a new run with the weights of its UNet: export it with "
            "format=diffusers path=PIPELINE, and give init_from=PIPELINE."
        )
    before, now = saved.get("caption_template", info.caption_template), info.caption_template
    if before != now:
        log.info(
            "the checkpoint was trained with captions %s, and this run goes on with captions %s",
            *(told_template(one) for one in (before, now)),
        )
