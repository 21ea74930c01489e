"""Pixels to what travels: PNG, JPEG or WebP with their story inside, base64, raw floats. Runs off the event loop."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffusion_art.infotext import KEY as INFOTEXT
from diffusion_art.sheets import text_chunks

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
QUALITY = 95  # of JPEG and WebP, when nobody says
_IMAGE_DESCRIPTION, _EXIF, _USER_COMMENT = 0x010E, 0x8769, 0x9286  # EXIF's tags
_JPEG_EXIF_BYTES = 65_533  # the most that one has room for
_PROMPTS = ("prompt", "negative_prompt")
_ENLARGED_PX = 512  # from this side on, PNGs are compressed with less effort: tenths of a second instead of seconds


def encode(
    pixels: UInt8[np.ndarray, "h w 3"],
    *,
    format: str = "png",
    quality: int | None = None,
    story: Mapping[str, Any] | None = None,
) -> bytes:
    """The picture as a file of `format`.

    `quality` is that of JPEG and WebP in percent; WebP at 100 is lossless, as PNG is. `story` goes into PNG's text
    chunks, one for each entry, and as JSON into the image description of the others; its `parameters` also into their
    user comment, where AUTOMATIC1111's tools look. A JPEG has room for 64 KiB: of a longer story it has a part.
    """
    picture, out = Image.fromarray(pixels), io.BytesIO()
    quality = QUALITY if quality is None else quality
    if format == "png":
        level = 9 if max(picture.size) < _ENLARGED_PX else 4
        picture.save(out, "PNG", pnginfo=text_chunks(story or {}), compress_level=level)
        return out.getvalue()
    if format == "jpeg":
        chroma = 0 if quality >= 90 else 2
        exif = _exif_of_jpeg(story or {})
        picture.save(out, "JPEG", quality=quality, subsampling=chroma, optimize=True, exif=exif)
    else:
        picture.save(out, "WEBP", quality=quality, lossless=quality == 100, method=4, exif=_exif(story or {}))
    return out.getvalue()


def _exif(story: Mapping[str, Any]) -> Image.Exif:
    exif = Image.Exif()
    if told := {key: value for key, value in story.items() if key != INFOTEXT}:
        exif[_IMAGE_DESCRIPTION] = json.dumps(told)  # in ASCII, which is all that the tag is for
    if parameters := story.get(INFOTEXT):
        exif.get_ifd(_EXIF)[_USER_COMMENT] = b"UNICODE\0" + str(parameters).encode("utf-16-be", "replace")
    return exif


def _exif_of_jpeg(story: Mapping[str, Any]) -> Image.Exif:
    """As much of the story as there is room for: without the prompts, which `parameters` has too, or without both."""
    short = {key: value for key, value in story.items() if key not in _PROMPTS}
    settings = {key: value for key, value in short.items() if key != INFOTEXT}
    shrinking = (_exif(part) for part in (story, short, settings))
    return next((exif for exif in shrinking if len(exif.tobytes()) <= _JPEG_EXIF_BYTES), Image.Exif())


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def as_floats(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Little-endian float32 in [0, 1], channels first: what EIR's clients read."""
    return np.ascontiguousarray(pixels.astype("<f4").transpose(2, 0, 1) / np.float32(255)).tobytes()
