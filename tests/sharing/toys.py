"""What the tests of this folder export, and the captions they paint."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from tests.fakes import MODEL_CONFIG, SAMPLER_CONFIG, toy_model, write_checkpoint

PROMPTS = ["Red, it&#39;s   a SEA; Édouard's 1872", "", "x" * 40]


def checkpoint_of(folder: Path, parts: dict[str, Any], **config: Any) -> Path:
    """The toy model with these parts in place of its own."""
    model = deepcopy(MODEL_CONFIG) | parts
    settings = {"model": model, "sampler": SAMPLER_CONFIG, "guidance_scale": 2.0, "prompts": ["red"]} | config
    return write_checkpoint(folder / "a.ckpt", toy_model(**parts), config=settings)
