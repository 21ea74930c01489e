"""The line of `parameters` that AUTOMATIC1111's web UI writes into its pictures, and that its users' tools read.

    a red house
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, CFG scale: 3, Seed: 7, Size: 64x64, Model hash: 3f9c21ab, Model: first, Version: 1

Size is what was painted. A picture that was enlarged afterwards says so as theirs do: `Hires resize: 512x512`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

KEY = "parameters"  # of the PNG's text chunk


def infotext(
    *,
    prompt: str,
    negative_prompt: str,
    seed: int,
    sampler: str,
    num_steps: int,
    guidance_scale: float,
    size: str,
    model: str,
    checkpoint: str,
    software: str,
    more: Mapping[str, Any] | None = None,
) -> str:
    """What a picture was painted from, in that format.

    `sampler` is its name there, `size` is WIDTHxHEIGHT, `checkpoint` a checkpoint's id, of which the hash is told;
    `more` are further fields.
    """
    fields: dict[str, Any] = {
        "Steps": num_steps,
        "Sampler": sampler,
        "CFG scale": f"{guidance_scale:g}",
        "Seed": seed,
        "Size": size,
        "Model hash": model_hash(checkpoint),
        "Model": model,
        **(more or {}),
        "Version": software,
    }
    negative = f"\nNegative prompt: {negative_prompt}" if negative_prompt else ""
    return f"{prompt}{negative}\n" + ", ".join(f"{name}: {_quoted(value)}" for name, value in fields.items())


def model_hash(checkpoint: str) -> str:
    """The hash in a checkpoint's id: 3f9c21ab of `step_00000500-3f9c21ab`, and of `step_00000500-3f9c21ab-bf16`."""
    found = re.search(r"-([0-9a-f]{8})(?:-[a-z]+16)*$", checkpoint)
    return found[1] if found else checkpoint.rpartition("-")[2]


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text
