"""What to say when a run does not fit: three overrides, with the run's own numbers, that would make it fit."""

from __future__ import annotations

from typing import Any

import torch

from diffusion_art.devices import computes_in_bf16, device_of
from diffusion_art.errors import UserError

PHRASES = ("out of memory", "DefaultCPUAllocator", "not enough memory", "bad_alloc")  # of allocators without a class
OFFERED = 3


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: a GPU's, or this machine's as torch or Python asked for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in PHRASES)


def out_of_memory(error: BaseException, settings: dict[str, Any], *, world: int, saved: str | None) -> UserError:
    """The error to end the run with. `saved` is the newest checkpoint of the run, if there is one."""
    size, parts = settings["data"]["global_batch_size"], settings["trainer"]["accumulate_grad_batches"]
    offers = overrides(settings, world=world)
    tries = "".join(f"\n  {number}. {override}  ({why})" for number, (override, why) in enumerate(offers, 1))
    note = (
        f"{saved} is saved; what changes neither batch nor network can go on from there with ckpt_path=last."
        if saved
        else "No checkpoint was written yet."
    )
    first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return UserError(
        f"out of memory with {size // world} pictures of {settings['data']['image_size_px']} px at once "
        f"({size} x {parts} per step, {world} process(es), {settings['trainer']['precision']}): {first}\n"
        f"Try one of:{tries}\n{note}"
    )


def overrides(settings: dict[str, Any], *, world: int) -> list[tuple[str, str]]:
    """Three overrides and what each does, the mildest first: those that leave the result alone come before others."""
    return [offer for offer in _all(settings, world=world) if offer is not None][:OFFERED]


def _all(settings: dict[str, Any], *, world: int) -> list[tuple[str, str] | None]:
    network, trainer = settings["model"].get("backbone") or {}, settings["trainer"]
    side = settings["data"]["image_size_px"]
    return [
        _smaller_parts(settings["data"]["global_batch_size"], trainer["accumulate_grad_batches"], world),
        ("model.backbone.gradient_checkpointing=true", "the same result, a third slower")
        if network.get("gradient_checkpointing") is False
        else None,
        ("trainer.precision=bf16-mixed", f"activations in half the memory of {trainer['precision']}")
        if "32" in str(trainer["precision"]) and computes_in_bf16(torch.device(device_of(trainer["accelerator"])))
        else None,
        _narrower(network),
        (f"data.image_size_px={side // 2}", "pictures of a quarter of the size") if side % 16 == 0 else None,
    ]


def _smaller_parts(size: int, parts: int, world: int) -> tuple[str, str] | None:
    """The step in more parts: in twice as many where it can be halved."""
    per_process = size // world
    split = next((number for number in range(2, per_process + 1) if per_process % number == 0), None)
    if split is None:
        return None
    override = f"data.global_batch_size={size // split} trainer.accumulate_grad_batches={parts * split}"
    return override, f"{size * parts} pictures per step as now, {per_process // split} at once"


def _narrower(network: dict[str, Any]) -> tuple[str, str] | None:
    widths, groups = network.get("block_channels"), network.get("norm_groups", 1)
    if not widths or any(width % (2 * groups) for width in widths):
        return None
    half = ",".join(str(width // 2) for width in widths)
    return f"'model.backbone.block_channels=[{half}]'", "a network of half the width, a quarter of the weights"
