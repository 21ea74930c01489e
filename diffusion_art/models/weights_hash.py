"""A hash by which weights are known again."""

from __future__ import annotations

from typing import Any

from torch import nn


def see_weights(digest: Any, module: nn.Module) -> None:
    """Let a hash of hashlib see a module's weights, names and values in float32."""
    for name, weight in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
