"""Pictures of any mode as they are looked at: upright, in eight bits, over white, in sRGB; and pictures as text."""

from __future__ import annotations

import base64
import binascii
import io
import re
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, ImageOps

WHITE = (255, 255, 255)

_SRGB = ImageCms.createProfile("sRGB")
DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,")


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened picture of any mode as it is looked at: upright, in eight bits, over white, in sRGB."""
    return to_srgb(plain(image), image.info.get("icc_profile"))


def plain(image: Image.Image) -> Image.Image:
    """Upright, in eight bits, over white: L, RGB or CMYK, in its own colour space."""
    return _over_white(_eight_bit(ImageOps.exif_transpose(image)))


def _eight_bit(image: Image.Image) -> Image.Image:
    """Wide modes to L: 16-bit by 257, other integers and floats by the range their peak suggests."""
    if image.mode == "1":
        return image.convert("L")
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    if image.mode.startswith("I;16"):
        peak = 65535.0
    else:
        limits = (1.0, 255.0, 65535.0, 2.0**32 - 1) if image.mode == "F" else (255.0, 65535.0, 2.0**32 - 1)
        peak = next((limit for limit in limits if values.max() <= limit), float(values.max()))
    return Image.fromarray((values * (255.0 / peak)).round().clip(0, 255).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    """Transparency onto white; then only L, RGB, CMYK are left."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        picture = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", picture.size, (*WHITE, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(image, lab, _SRGB, outputMode="RGB") or image.convert("RGB")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """By the embedded ICC profile where there is a usable one, else by Pillow's plain formulas."""
    if profile:
        transform = _transform(profile, image.mode)
        if transform is not None:
            return ImageCms.applyTransform(image, transform) or image.convert("RGB")
    return image.convert("RGB")


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where the profile is broken or belongs to another colour space than `mode`."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(opened, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def from_base64(text: str) -> bytes:
    """b"" for another text."""
    uri = DATA_URI.match(text)
    text = "".join(text[uri.end() if uri else 0 :].split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""
