"""What the machine at hand can do, and the names of the floats it does it in."""

from __future__ import annotations

import torch

from diffusion_art.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TORCHS_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def pick_device(name: str = "auto") -> str:
    """The device asked for; `auto` is the best there is.

    Raises:
        UserError: no name of a device, or one that this machine has not.
    """
    if name != "auto":
        _check(name)
        return name
    return device_of("auto")


def device_of(accelerator: str) -> str:
    """`cuda`, `mps` or `cpu`: what Lightning computes on here where it is asked for this accelerator."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    mps = accelerator == "mps" or (accelerator in ("auto", "gpu") and torch.backends.mps.is_available())
    return "mps" if mps else "cpu"


def _check(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name} is no device: choose auto, cpu, cuda or mps.") from error
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if not count:
        raise UserError(f"device={name} cannot be used: torch finds none here. Leave device out, or give device=cpu.")
    if (device.index or 0) >= count:
        raise UserError(f"device={name} is not there: torch finds {count} here, {device.type}:0 to {count - 1}.")


def precision_named(name: str) -> str:
    """A precision as it is spelled here (`bf16`), also where it is given as torch spells it (`bfloat16`)."""
    return TORCHS_NAMES.get(name, name)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are fast on this device: GPUs before Ampere only emulate them."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_tile"))
    return False


def widest(device: torch.device) -> torch.dtype:
    """The float to add up many numbers in: float64, which MPS has not."""
    return torch.float32 if device.type == "mps" else torch.float64
