"""A page of the painter's pictures, one row per style.

python -m diffusion_art.sources.painter.contact_sheet data/painter.png
python -m diffusion_art.sources.painter.contact_sheet page.png --image-size-px 32 --zoom 3 --seed 7
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from diffusion_art.errors import UserError
from diffusion_art.sources.painter.painter import Painter
from diffusion_art.sources.painter.palette import CREAM, INK
from diffusion_art.sources.painter.styles import STYLES


def contact_sheet(
    *, columns: int = 10, image_size_px: int = 96, zoom: int = 1, seed: int = 0, held_out: bool = False
) -> Image.Image:
    """`columns` paintings of every style with the style's name at the left; `zoom` repeats pixels."""
    tile, gap, label = image_size_px * zoom, 4, 140
    painter = Painter(seed=seed, count=columns * len(STYLES), image_size_px=image_size_px, held_out=held_out)
    page = Image.new("RGB", (label + columns * (tile + gap) + gap, len(STYLES) * (tile + gap) + gap), CREAM)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(13)
    for index in range(painter.count):
        column, row = divmod(index, len(STYLES))
        x, y = label + gap + column * (tile + gap), gap + row * (tile + gap)
        image = Image.fromarray(painter.paint(index).image)
        page.paste(image.resize((tile, tile), Image.Resampling.NEAREST) if zoom > 1 else image, (x, y))
        if column == 0:
            name = STYLES[row].name.replace("Abstract ", "Abstract\n")
            draw.multiline_text((label - 6, y + tile / 2), name, INK, font, anchor="rm", align="right")
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the PNG to write")
    parser.add_argument("--columns", type=int, default=10, help="pictures per style")
    parser.add_argument("--image-size-px", type=int, default=96)
    parser.add_argument("--zoom", type=int, default=1, help="repeat each pixel this many times each way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="the combinations kept from training")
    asked = vars(parser.parse_args(arguments))
    path = asked.pop("path")
    try:
        page = contact_sheet(**asked)
    except UserError as error:
        sys.exit(f"error: {error}")
    # 256 colours keep a page of flat paint under 400 kB
    page = page.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(path, optimize=True)
    except (OSError, ValueError) as error:  # a folder that is not ours, a name that ends as no kind of picture does
        sys.exit(f"error: {path} cannot be written ({error}); give the page a name such as page.png")


if __name__ == "__main__":
    main()
