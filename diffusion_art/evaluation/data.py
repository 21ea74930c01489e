"""Which pictures a run is measured against: those named, fresh ones of the painter, or those at its `data.path`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusion_art.config import build, is_a
from diffusion_art.errors import UserError
from diffusion_art.evaluation.reference import PainterPictures, Pictures, ShardPictures, fresh_paintings
from diffusion_art.files import command_line
from diffusion_art.shards.build.locate import Shards
from diffusion_art.shards.build.tally import NoCaptions
from diffusion_art.sources.painter import Painter
from diffusion_art.training.run.run_shards import shards_of


class RunData:
    """The data of a run, from its config; `real` names shards to compare with in place of its own.

    Without `real` a run on the painter's pictures is compared with fresh ones. Shards are found, or built, as training
    does it.
    """

    def __init__(self, config: Mapping[str, Any], *, real: str | None = None) -> None:
        self._config = config
        self._data = dict(config.get("data") or {})
        self._real = real
        self.image_size_px: int = config["model"]["image_size_px"]
        self.painter = self._painter()

    @property
    def has_training_pictures(self) -> bool:
        """Whether they are at hand, not behind a server."""
        return self.painter is not None or self._real is not None or bool(self._data.get("path"))

    def real(self) -> Pictures:
        """What its pictures are compared with: for shards the training pictures, as is usual for distances. Their order
        does not depend on the run's seed.
        """
        if self.painter is not None and self._real is None:
            return fresh_paintings(image_size_px=self.image_size_px)
        return self._shards("train", seed=0)

    def kept(self) -> Pictures:
        """Pictures that training did not show."""
        if self.painter is not None and self._real is None:
            return fresh_paintings(image_size_px=self.image_size_px, seed=1)
        return self._shards("val", seed=None)

    def trained_on(self) -> Pictures:
        """The training pictures in their stored order."""
        if self.painter is not None and not self._data.get("path"):
            return PainterPictures(self.painter, there=len(self.painter))
        return self._shards("train", seed=None)

    def _shards(self, split: str, *, seed: int | None) -> ShardPictures:
        real = {"path": self._real, "source": None} if self._real is not None else {}
        data = self._data | real
        if not data.get("path"):
            exported, run = "an exported model tells no pictures' place", "this run read its pictures from a server"
            why = run if "url" in self._data else exported
            raise UserError(f"{why}: give real=FOLDER, pictures or shards of them, to compare with.")
        gone = self._real is None and not data.get("source") and isinstance(data["path"], str)
        if gone and "://" not in data["path"] and not Path(data["path"]).expanduser().exists():
            raise UserError(
                f"there is no data at data.path={data['path']}, on which the run was trained: where it lies elsewhere "
                "now, give real=FOLDER, its pictures or shards of them."
            )
        shards = replace(self._located(data), key="data.path" if self._real is None else "real")
        try:
            found = shards.ready()
        except NoCaptions as error:
            raise error if self._real is None else self._without_captions(error) from error
        return ShardPictures(found, split=split, seed=seed, image_size_px=shards.image_size_px)

    def _without_captions(self, error: NoCaptions) -> UserError:
        """What to do with the pictures of `real`, which is no build of its own."""
        built = ["source=any", f"source.path={self._real}", f"image_size_px={self.image_size_px}", "out=SHARDS"]
        needs = "pictures are painted from the captions of those that they are compared with"
        if error.template is not None:
            prepare = command_line("prepare", [*built, f"caption_template={error.template}"])
            return UserError(f"{error.found}; {needs}. Build shards that have some, and give real=SHARDS: {prepare}")
        prepare = command_line("prepare", [*built, "allow_no_captions=true"])
        return UserError(
            f"{error.found}; {needs}. {error.way}. Or, to compare with what is painted without a caption, build shards "
            f"of them and give real=SHARDS: {prepare}"
        )

    def _located(self, data: dict[str, Any]) -> Shards:
        paths = self._config.get("paths") or {"data_dir": "data"}
        return shards_of({"image_size_px": self.image_size_px, **data}, paths["data_dir"])

    def _painter(self) -> Painter | None:
        """The one whose pictures the run was trained on, if it was."""
        source = self._data.get("source")
        if not source or not is_a(source, Painter):
            return None
        if self._data.get("path") and self._located(self._data).lie_elsewhere():
            return None
        return build(source)
