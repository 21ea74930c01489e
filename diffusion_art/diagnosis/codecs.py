"""Which pictures can be read here: each format is written and read once."""

from __future__ import annotations

import io
from importlib.util import find_spec

import numpy as np
from PIL import Image, features

from diffusion_art.diagnosis.finding import Finding
from diffusion_art.sources.pictures.formats import HEIC_EXTRA, can_read_heic

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF")
LIBRARIES = {"simplejpeg": "decodes JPEGs for training", "isal": "unpacks gzip"}


def codecs() -> list[Finding]:
    read = [name for name in FORMATS if _reads(name)]
    found = [Finding("pictures", f"Pillow reads {', '.join(read)}")]
    if lacking := [name for name in FORMATS if name not in read]:
        advice = "python -m pip install --force-reinstall pillow"
        found.append(Finding("pictures", f"{', '.join(lacking)} cannot be read", "missing", advice))
    found.append(
        Finding("HEIC", "read by pillow-heif")
        if can_read_heic()
        else Finding("HEIC", "cannot be read", "missing", HEIC_EXTRA)
    )
    found.append(Finding("libjpeg-turbo", "in Pillow" if features.check_feature("libjpeg_turbo") else "not in Pillow"))
    for name, use in LIBRARIES.items():
        there = find_spec(name) is not None
        advice = "" if there else f"python -m pip install {name}"
        found.append(Finding(name, f"{use}" if there else "not installed", "ok" if there else "impossible", advice))
    return found


def _reads(name: str) -> bool:
    """Whether a picture survives being written and read."""
    pixels = np.tile(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (1, 32, 3))
    file = io.BytesIO()
    try:
        Image.fromarray(pixels).save(file, format=name)
        with Image.open(io.BytesIO(file.getvalue()), formats=[name]) as picture:
            back = np.asarray(picture.convert("RGB"), dtype=float)
    except (OSError, KeyError, ValueError):
        return False
    return bool(back.shape == pixels.shape and np.abs(back - pixels).mean() < 8)
