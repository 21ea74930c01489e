"""Samplers: objects that carry x_T down a grid of times to x_0, asking a denoiser at each.

    DPMSolverPP2M(num_steps=20).sample(denoiser, x_T) -> x_0

Each is one class: its docstring, its paper, its formula and its numbers. There are two kinds.

    Tabular    x after a call is a linear map of x, x_0_hat and what came before: a table of numbers (`table.py`)
    Loop       any other: a generator that asks, is answered, and goes on as it likes (`base.py`)

The server paints pictures of tabular samplers together, each at a step of its own, and one of a loop by itself.

Every module of this folder is imported here, so a class in a new file is known by its `name` wherever samplers are
named by a word: over HTTP, in a picture's metadata, in configs of old checkpoints. `docs/extending.md` adds one.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from diffusion_art.diffusion.samplers.base import (
    SAMPLERS,
    Ask,
    Callback,
    Loop,
    Noise,
    NoiseSource,
    Sampler,
    Tabular,
    by_name,
    seeds_from,
)

__all__ = ["SAMPLERS", "Ask", "Callback", "Loop", "Noise", "NoiseSource", "Sampler", "Tabular", "by_name", "seeds_from"]

for _module in sorted(module.name for module in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")
