"""Safetensors files, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str]) -> None:
    """Write tensors by name, in any layout; a file that is there is replaced once the new one is whole.

    Until then it has the suffix `.part`.
    """
    part = path.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, part, metadata=metadata)
    part.chmod(0o644)  # safetensors writes for the owner alone
    part.replace(path)
