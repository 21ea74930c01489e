"""What is measured: a model that paints in one way, and the pictures it is compared with.

What is done so far, finished metrics and painted pictures, is kept in a hidden folder beside the results, under a
digest of all that the figures depend on, so that one that was killed goes on. It goes once the evaluation is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffusion_art import __version__
from diffusion_art.evaluation.caption_following import Generate, save_json
from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.features import Features
from diffusion_art.evaluation.networks import Networks, features_of
from diffusion_art.evaluation.progress import progressing
from diffusion_art.evaluation.reference import Pictures, Reference
from diffusion_art.files import save_tensors
from diffusion_art.models.text_to_image import TextToImage


@dataclass
class Subject:
    """A model and its data, as every metric sees them. Pictures are painted once and features taken once for all.

    Picture `i` is painted from the caption of real picture `i` and from seed `1,000,000 seed + i`.
    """

    model: TextToImage
    generate: Generate
    data: RunData
    networks: Networks
    folder: Path | None  # where a metric may leave files of its own
    story: dict[str, Any]  # checkpoint, weights and how it paints: what such files say of their origin
    seed: int = 0
    batch_size: int = 48
    work: Work | None = None
    _seen: dict[tuple[str, int], Tensor] = field(default_factory=dict)  # features taken so far
    _painted: dict[int, Tensor] = field(default_factory=dict)

    @cached_property
    def real(self) -> Pictures:
        """What its pictures are compared with."""
        return self.data.real()

    @cached_property
    def kept(self) -> Pictures:
        """Pictures that training did not show."""
        return self.data.kept()

    @cached_property
    def trained_on(self) -> Pictures:
        return self.data.trained_on()

    def painted(self, count: int) -> Reference:
        """`count` pictures, painted from the captions of as many real ones."""
        captions = self.real.captions(count)
        starts = range(0, count, self.batch_size)
        shown = progressing(starts, f"painting {count:,} pictures", of=len(starts))
        parts = [self._batch(start, captions) for start in shown]
        return Reference(torch.cat(parts)[:count], captions)

    def some_painted(self, count: int) -> Reference | None:
        """The first pictures that were painted, at most `count`; None where no metric asked for any."""
        if not self._painted:
            return None
        images = torch.cat([self._painted[start] for start in sorted(self._painted)])[:count]
        return Reference(images, self.real.captions(len(images)))

    def remembered(self, what: str, count: int, make: Callable[[], Tensor]) -> Tensor:
        """What was made of the first `count` pictures before, or is made now."""
        if (what, count) not in self._seen:
            self._seen[what, count] = make()
        return self._seen[what, count]

    def real_features(self, features: Features, count: int) -> Float[Tensor, "n d"]:
        return self.remembered(f"real {features.name}", count, lambda: features_of(self.real, count, features))

    def painted_features(self, features: Features, count: int) -> Float[Tensor, "n d"]:
        def look() -> Tensor:
            told = f"{features.name} of {count:,} painted pictures"
            return features(self.painted(count).images, progress=told)

        return self.remembered(f"painted {features.name}", count, look)

    def _batch(self, start: int, captions: list[str]) -> Tensor:
        stop = min(start + self.batch_size, len(captions))
        if start not in self._painted or len(self._painted[start]) < stop - start:
            seeds = [1_000_000 * self.seed + row for row in range(start, stop)]
            self._painted[start] = self.paint(captions[start:stop], seeds)
        return self._painted[start]

    def paint(self, captions: list[str], seeds: list[int]) -> Float[Tensor, "b 3 h w"]:
        """One batch of pictures; where the work is kept, those painted before an interruption."""
        if self.work is None:
            return self.generate(captions, seeds)
        return self.work.pictures(captions, seeds, self.generate)


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
