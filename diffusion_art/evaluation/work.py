"""What an evaluation has done so far: finished metrics and painted pictures, so that one that was killed goes on.

It lies in a hidden folder beside the results, under a digest of all that the figures depend on, and goes away once
the evaluation is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffusion_art import __version__
from diffusion_art.evaluation.caption_following import Generate, save_json
from diffusion_art.files import save_tensors

FOLDER = ".evaluation"


class Work:
    """The state of one evaluation of one model, painted in one way. `told` is all that its figures depend on."""

    def __init__(self, folder: Path, told: dict[str, Any]) -> None:
        self.folder = folder / FOLDER / digest_of(told)

    def metric(self, name: str, settings: Any, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of a metric with these settings: as it was measured before, or measured now and kept."""
        path = self.folder / f"{name}-{digest_of(settings)}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            result = measure()
        save_json(result, path)
        return result

    def pictures(self, captions: list[str], seeds: list[int], paint: Generate) -> Float[Tensor, "b 3 h w"]:
        """A batch of pictures: as it was painted before, or painted now and kept."""
        path = self.folder / f"pictures-{digest_of([captions, seeds])}.safetensors"
        try:
            return load_file(path)["pictures"].clone()  # aligned as new memory is
        except (OSError, SafetensorError, KeyError):
            painted = paint(captions, seeds)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, {"pictures": painted}, metadata={})
        return painted

    def drop_pictures(self) -> None:
        """All metrics have seen them."""
        for path in self.folder.glob("pictures-*"):
            path.unlink()

    def done(self, *, keep_pictures: bool = False) -> None:
        """The results are written: what led to them goes, but for the pictures if they are to be kept."""
        for path in self.folder.glob("*.json"):
            path.unlink()
        if not keep_pictures:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
                self.folder.parent.rmdir()


def digest_of(told: Any) -> str:
    """The same for the same plain data, and the same version of this program."""
    text = json.dumps([__version__, torch.__version__, told], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
