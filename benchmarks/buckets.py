"""Which share of their pixels pictures lose to a square, and to buckets.

    python benchmarks/buckets.py [path=../shared/data/openclipart] [pictures=20000] [max_ratio=3]

Sizes are those of a real collection at `path`, read from the headers of its pictures, and made ones that stand in for
WikiArt, which is not here: a guess, the longer side over the shorter log-normal with median 1.27 and a tenth above 1.6,
one picture in twenty a square and of the others 55 in 100 lying. A picture is cropped to the bucket that crops it
least, as `prepare bucket_step_px=...` does it: never padded, never stretched. Each picture counts alike, whatever its
size.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image
from record import claim, command, figure, write

from diffusion_art.sizes import Size, bucket_sizes, cropped, nearest
from diffusion_art.sources.base import Picture
from diffusion_art.sources.detect import open_source

GRIDS = ((128, 8), (256, 16), (128, 16))  # image_size_px and bucket_step_px; the first has the goal
LIMIT_PERCENT = 3.0


def of_collection(path: str) -> list[Size]:
    """The sizes of the pictures there."""
    source = open_source(path)
    found = (item for chunk in source.chunks() for item in source.pictures(chunk) if isinstance(item, Picture))
    return [Image.open(io.BytesIO(item.image)).size for item in found if isinstance(item.image, bytes)]


def like_wikiart(count: int, seed: int = 0) -> list[Size]:
    """Made sizes, whose distribution is told above."""
    rng = np.random.default_rng(seed)
    ratios = np.exp(np.abs(np.log(1.27) + 0.18 * rng.standard_normal(count)))
    ratios[rng.random(count) < 0.05] = 1.0
    long = np.round(1000 * ratios).astype(int).tolist()
    lies = (rng.random(count) < 0.55).tolist()
    return [(side, 1000) if lying else (1000, side) for side, lying in zip(long, lies, strict=True)]


def lost_percent(sizes: list[Size], choose: Callable[[int, int], Size]) -> float:
    """The mean share of its pixels that a picture loses."""
    return 100 * float(np.mean([cropped(width, height, choose(width, height)) for width, height in sizes]))


def main(path: str = "../shared/data/openclipart", pictures: str = "20000", max_ratio: str = "3") -> None:
    asked = {"command": command("buckets", path=path, pictures=pictures, max_ratio=max_ratio)}
    rows = []
    for name, sizes in (("openclipart", of_collection(path)), ("WikiArt-like sizes", like_wikiart(int(pictures)))):
        square = lost_percent(sizes, lambda width, height: (1, 1))
        for image_size_px, step_px in GRIDS:
            buckets = bucket_sizes(image_size_px, step_px=step_px, max_ratio=float(max_ratio))
            ours = lost_percent(sizes, lambda width, height, buckets=buckets: nearest(width, height, buckets))
            measure = f"pixels lost, {name}, {image_size_px} px in steps of {step_px}, %"
            told = {"pictures": len(sizes), "buckets": len(buckets), **asked}
            if (image_size_px, step_px) == GRIDS[0]:
                told |= {"peer": square, "peer_name": "centre crop", "ratio": square / ours, "goal": "< 3 %"}
                rows.append(claim(measure, ours=ours, holds=ours < LIMIT_PERCENT, **told))
            else:
                rows.append(figure(measure, ours, **told))
    write("buckets", rows)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
