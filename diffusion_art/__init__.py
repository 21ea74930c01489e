"""diffusion_art: text-to-image diffusion models of art, trained from scratch on a stream."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_art.checkpoints import load_text_to_image as load_text_to_image
    from diffusion_art.runs import load_run as load_run

__version__ = "0.1.0"

_LAZY = {"load_run": "diffusion_art.runs", "load_text_to_image": "diffusion_art.checkpoints"}


def __getattr__(name: str) -> Any:
    """`diffusion_art.load_run` and `load_text_to_image`: importing the package itself loads no torch."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
