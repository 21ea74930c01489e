"""A folder to hand on, whole or not there, and the model card and the tokenizer's files in it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.evaluation.model_card import OURS, card_of, write_card
from diffusion_art.files import written_folder
from diffusion_art.models.tokenizer import END, SMALLEST, START, ClipTokenizer, first_merges
from diffusion_art.sharing.painting import Painting

CARD = "README.md"  # where a model hub looks for it


@contextmanager
def new_folder(path: Path, *, former: bool, parts: Collection[str]) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` once it is whole.

    A card that somebody changed stays, and so does what is not one of `parts`, the names that are written at its top.

    Raises:
        UserError: `path` holds something else: no `former` export.
    """
    if path.exists() and not former and (path.is_file() or any(path.iterdir())):
        raise UserError(f"path={path} holds something else: give a folder of its own.")
    card = path / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    written = {*parts, *(_pictures(text) if OURS in text else ())}
    with written_folder(path) as folder:
        if card.is_file():
            shutil.copy2(card, folder)
        yield folder
        if path.is_dir():
            _carry_over(path, folder, without=written)


def told_in(file: Path) -> dict[str, Any]:
    """The JSON object that a file holds; empty where there is none."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _carry_over(former: Path, folder: Path, *, without: Collection[str]) -> None:
    """What else lies in the former folder, such as the `.git` of a hub's clone, into the new one."""

    def left_out(at: str, names: list[str]) -> set[str]:
        return {name for name in names if name in without or (folder / name).exists()} if Path(at) == former else set()

    shutil.copytree(former, folder, symlinks=True, ignore=left_out, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    """A second name for a file; a copy, where the file system has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _pictures(card: str) -> list[str]:
    """The files beside a card that it shows."""
    return re.findall(r"!\[[^\]]*\]\(([^)/]+)\)", card)


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
        for picture in _pictures(text):
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
    return card_of(run, result, {}, called=run.name, folder=run.path)


NAMES = {START: "<|startoftext|>", END: "<|endoftext|>"}  # of these tokens in CLIP's own files


def vocabulary(tokenizer: ClipTokenizer) -> dict[str, int]:
    """Each part of a word and its id."""
    return {NAMES.get(part, part): number for part, number in tokenizer.bpe.ids.items()}


def merges(tokenizer: ClipTokenizer) -> list[tuple[str, str]]:
    """The pairs that are joined, the first of them first."""
    return first_merges(tokenizer.vocab_size - SMALLEST)


def write_tokenizer(folder: Path, tokenizer: ClipTokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    words = json.dumps(vocabulary(tokenizer), ensure_ascii=False)
    (folder / "vocab.json").write_text(words, encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges(tokenizer)), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
