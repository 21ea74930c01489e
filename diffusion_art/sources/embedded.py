"""The captions that cameras, archives and painting programs keep within picture files: `caption_template='{embedded}'`.

The prompt that a program notes which generates pictures (generators.py), the description in XMP, IPTC, EXIF or a PNG's
own texts, the first that there is. Nothing of it is read unless a template asks.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image, ImageFile, IptcImagePlugin

from diffusion_art.captions.captioner import clean
from diffusion_art.sources.base import Source, pictures_of
from diffusion_art.sources.folder.sidecars import read_xmp
from diffusion_art.sources.pictures import FORMATS, is_heic, open_heic
from diffusion_art.sources.programs.exports import of_a_camera
from diffusion_art.sources.programs.generators import prompt_of
from diffusion_art.sources.tables.texts import decode

EMBEDDED = "embedded"  # the column of a template

_LOOKED_AT = 8
_IMAGE_DESCRIPTION, _XP_TITLE, _XP_COMMENT, _XP_SUBJECT = 0x010E, 0x9C9B, 0x9C9C, 0x9C9F  # EXIF tags
_EXIF, _USER_COMMENT = 0x8769, 0x9286
_MAKE, _MODEL = 0x010F, 0x0110
_OF_GENERATORS = ("prompt", "invokeai_metadata", "sd-metadata", "Dream")  # texts of a PNG
_WORDS = re.compile(r"[^\W\d_]{2,}")
_OF_A_PROGRAM = re.compile(
    r"creator:|https?:|(file written|file source|created|made|edited|generated|processed|compressed|converted|resized|"
    r"optimi[sz]ed|lead|image generated|handmade software|intel\(r\)|lavc|applemark|software|ezgif|gd-jpeg|jpeg)\b",
    re.IGNORECASE,
)
_CAPTION_OF_IPTC = (2, 120)
_UNICODE = b"UNICODE\0"


def embedded_caption(data: bytes | np.ndarray) -> str:
    """The caption within a picture file; "" where there is none, or the file cannot be read."""
    if isinstance(data, np.ndarray):
        return ""
    try:
        image = open_heic(data) if is_heic(data) else Image.open(io.BytesIO(data), formats=FORMATS)
        texts = (clean(text) for text in _texts(image))
        return next((text for text in texts if text and not of_a_camera(text)), "")
    except Exception:  # Pillow raises two dozen types on broken files; the builder names such pictures
        return ""


def with_captions_within(source: Source) -> tuple[int, int]:
    """Of how many of a source's first pictures the files hold captions, and how many that were."""
    found = [bool(embedded_caption(picture.image)) for picture in islice(pictures_of(source), _LOOKED_AT)]
    return sum(found), len(found)


def _texts(image: Image.Image) -> Iterator[str]:
    """Every text that may be a caption, the likeliest first."""
    info, exif = image.info, image.getexif()
    comment = _user_comment(exif.get_ifd(_EXIF).get(_USER_COMMENT)) or _user_comment(exif.get(_USER_COMMENT))
    parameters = _text(info.get("parameters"))
    yield _noted(parameters) or ("" if parameters.startswith("{") else parameters)
    yield from (_noted(_text(info.get(name))) for name in _OF_GENERATORS)
    yield _noted(comment)
    yield from (_noted(_text(exif.get(tag)).partition(":")[2]) for tag in (_MODEL, _MAKE))  # ComfyUI's WebP
    if xmp := _text(info.get("xmp") or info.get("XML:com.adobe.xmp")):
        columns = read_xmp(xmp)
        yield from (prompt_of(columns[name]) for name in ("caption", "title") if name in columns)
    if isinstance(image, ImageFile.ImageFile) and image.format in ("JPEG", "MPO", "TIFF"):
        iptc: Any = IptcImagePlugin.getiptcinfo(image)
        yield _text((iptc or {}).get(_CAPTION_OF_IPTC))
    yield prompt_of(_text(info.get("Description") or info.get("description")))
    yield _text(exif.get(_IMAGE_DESCRIPTION))
    yield from (_utf16(exif.get(tag)) for tag in (_XP_COMMENT, _XP_TITLE, _XP_SUBJECT))
    yield _text(info.get("Title"))
    yield _written(_text(info.get("comment")))  # JPEG's and GIF's own
    if not comment.lstrip().startswith(("{", "[")) and len(_WORDS.findall(comment)) > 1:  # others write numbers there
        yield comment


def _written(comment: str) -> str:
    """A comment, unless a program left its name there."""
    return "" if _OF_A_PROGRAM.match(comment) or len(_WORDS.findall(comment)) < 2 else comment


def _noted(text: str) -> str:
    """The prompt in what a program notes of a picture that it generates; "" where the text is something else."""
    prompt = prompt_of(text)
    return "" if prompt == text else prompt


def _text(value: Any) -> str:
    if isinstance(value, list):
        return _text(value[0]) if value else ""
    return decode(value).text if isinstance(value, bytes) else str(value or "")


def _utf16(value: Any) -> str:
    return value.decode("utf-16-le", "ignore") if isinstance(value, bytes) else ""


def _user_comment(value: Any) -> str:
    """The text behind the eight bytes that name its encoding."""
    if not isinstance(value, bytes):
        return _text(value)
    if not value.startswith(_UNICODE):
        return _text(value[8:])
    rest = value[8:]
    big = rest[0::2].count(0) >= rest[1::2].count(0)
    return rest.decode("utf-16-be" if big else "utf-16-le", "ignore")
