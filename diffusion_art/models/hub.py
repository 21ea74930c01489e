"""The Hugging Face hub: whether something can be had from it."""

from __future__ import annotations

from collections.abc import Sequence

import huggingface_hub
from huggingface_hub import try_to_load_from_cache

REACH_TIMEOUT_S = 5.0


def on_hub(repo: str, files: Sequence[str]) -> bool:
    """Whether one of these files is in the cache, or the repository on a hub that answers now."""
    if any(isinstance(try_to_load_from_cache(repo, name), str) for name in files):
        return True
    try:
        huggingface_hub.HfApi().model_info(repo, timeout=REACH_TIMEOUT_S)
    except Exception:  # offline, refused, renamed: in each case not reachable
        return False
    return True
