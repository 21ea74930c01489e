"""Which versions of what are installed, and which pictures can be read: each format is written and read once."""

from __future__ import annotations

import io
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

import numpy as np
from PIL import Image, features

from diffusion_art.diagnosis.finding import Finding
from diffusion_art.extras import install_command, missing
from diffusion_art.training.run.provenance import commit

TOLD = ("torch", "torchvision", "lightning", "diffusers", "open_clip_torch", "hydra-core", "numpy", "pillow")


def versions() -> list[Finding]:
    """Python and the libraries whose versions a bug report needs; then what the project needs and is not there."""
    system = f"{platform.system()} {platform.release()}, {platform.machine()}, {' '.join(platform.libc_ver())}".strip(
        ", "
    )
    ours = f"{_version('diffusion-art') or 'not installed'}, commit {commit() or 'unknown'}"
    told = [Finding("diffusion_art", ours), Finding("python", f"{platform.python_version()} on {system}")]
    told += [Finding(name, found) for name in TOLD if (found := _version(name))]
    return [*told, *_missing()]


def _missing() -> list[Finding]:
    wanted = [word for word in requires_of("diffusion-art") if "extra ==" not in word]
    names = [re.split(r"[<>=~!;\[ ]", word)[0] for word in wanted]
    found = [
        Finding(name, "not installed", "impossible", f"python -m pip install {name}")
        for name in names
        if _version(name) is None
    ]
    train = install_command("train")
    return found + [Finding(name, "not installed", "impossible", train) for name in missing("train")]


def requires_of(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# ---------------------------------------------------------------------- codecs of pictures

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
        if find_spec("pillow_heif") is not None
        else Finding("HEIC", "cannot be read", "missing", "install pillow-heif")
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
