"""Command: a collection of pictures -> a shard folder to train from.

python -m diffusion_art.prepare source=painter image_size_px=32
python -m diffusion_art.prepare source=wikiart image_size_px=128
python -m diffusion_art.prepare source=folder source.path=FOLDER out=data/paintings fit=letterbox
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from diffusion_art.cli import command
from diffusion_art.config import build, plain
from diffusion_art.shards.build.build import build_shards, check_settings, default_out
from diffusion_art.sources.painter import Painter
from diffusion_art.units import counted


@command("prepare")
def main(config: DictConfig) -> None:
    """Build the shards of `config.source`, or say that they are there already."""
    settings = {name: value for name, value in plain(config).items() if name not in ("source", "out")}
    check_settings(settings)
    source = build(config.source)
    if config.out is None:
        out = default_out(source.name, image_size_px=config.image_size_px)
    else:
        out = Path(config.out).expanduser()
    if not isinstance(source, Painter):
        _say(
            f"{_shapes(config)} To see a few before all are built: the same command with limit=48 out=data/look, then\n"
            "  python -m diffusion_art.shards preview path=data/look out=preview.png"
        )
    try:
        manifest = build_shards(source, out, again=_command(), **settings)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped by Ctrl-C; the same command goes on from what {out} holds") from None
    pictures = sum(manifest.splits.values())
    _say(
        f"{out} is ready: {counted(pictures)} of {manifest.image_size_px} px. Train on them with\n"
        f"  python -m diffusion_art.train +experiment=openclipart {shlex.quote(f'data.path={out}')} "
        f"data.image_size_px={manifest.image_size_px}"
    )


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True, markup=False, highlight=False)


def _shapes(config: DictConfig) -> str:
    """What becomes of a picture that is not square."""
    if config.bucket_step_px:
        return (
            f"Pictures keep their shape (bucket_step_px={config.bucket_step_px}): each is cut to the nearest of the "
            "sizes of one area."
        )
    return {
        "crop": "Of a picture that is not square the largest centred square is kept (fit=crop). fit=letterbox keeps "
        "all of it on white, bucket_step_px=8 its shape.",
        "letterbox": "A picture that is not square is kept whole, on a white square (fit=letterbox).",
        "stretch": "A picture that is not square is stretched to a square (fit=stretch).",
    }[config.fit]


def _command() -> str:
    """What was typed, but for where the shards go, to be typed again with more behind it."""
    words = [word for word in sys.argv[1:] if not word.startswith(("out=", "overwrite="))]
    return shlex.join(["python", "-m", "diffusion_art.prepare", *words])


if __name__ == "__main__":
    main()
