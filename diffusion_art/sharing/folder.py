"""A folder to hand on, whole or not there, and the model card in it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from diffusion_art.errors import UserError
from diffusion_art.evaluation.model_card import OURS, model_card, write_card
from diffusion_art.files import written_folder
from diffusion_art.sharing.painting import Painting

CARD = "README.md"  # where a model hub looks for it


@contextmanager
def new_folder(path: Path, *, known_by: Sequence[str]) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` once it is whole. A card that somebody changed stays.

    Raises:
        UserError: `path` holds something else: none of the files `known_by`.
    """
    former = any((path / name).is_file() for name in known_by)
    if path.exists() and not former and (path.is_file() or any(path.iterdir())):
        raise UserError(f"path={path} holds something else: give a folder of its own.")
    with written_folder(path) as folder:
        if (path / CARD).is_file():
            shutil.copy2(path / CARD, folder)
        yield folder


def write_cards(folder: Path, painting: Painting, *, library: str, how: Sequence[str]) -> None:
    """The run's card as the folder's: how to paint is `how`, and `library` is what the hub files it under."""
    run, home = painting.run, painting.run.path
    card = home / "MODEL_CARD.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    if not text or (OURS in text and run.checkpoint_id not in text):  # its figures are another checkpoint's
        text = _without_figures(painting)
    if OURS in text:
        text = re.sub(r"^library_name: .*$", f"library_name: {library}", text, count=1, flags=re.MULTILINE)
        painted = "\n".join(["## How to paint", "", *how, "", ""])
        text = re.sub(r"## How to paint\n.*?(?=^## )", lambda _: painted, text, flags=re.DOTALL | re.MULTILINE)
    if write_card(folder / CARD, text):
        for picture in re.findall(r"!\[[^\]]*\]\(([^)/]+)\)", text):
            if (home / picture).is_file():
                shutil.copyfile(home / picture, folder / picture)


def _without_figures(painting: Painting) -> str:
    run = painting.run
    result = {
        "checkpoint": run.checkpoint_id,
        "weights": run.weights,
        "sampler": painting.sampler.describe(),
        "guidance_scale": painting.guidance_scale,
    }
    return model_card(
        run.name,
        run.config,
        result,
        {},
        step=run.step,
        parameters=sum(weight.numel() for weight in painting.model.trainable_state().values()),
        provenance=run.provenance,
        run=run.name,
        folder=run.path,
    )
