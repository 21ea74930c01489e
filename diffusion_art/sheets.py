"""Contact sheets of 8-bit pictures, and files with their story: what paints without torch.

Every picture we write says what was asked for, PNGs in their text chunks, from which `read_metadata` reads it back. One
of these, `parameters`, is what AUTOMATIC1111's web UI writes, and its users' tools read:

    a red house
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, CFG scale: 3, Seed: 7, Size: 64x64, Model hash: 3f9c21ab, Model: first, Version: 1

Size is what was painted. A picture that was enlarged afterwards says so as theirs do: `Hires resize: 512x512`.
"""

from __future__ import annotations

import io
import json
import re
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from diffusion_art.files import written

TILE_PX = 144  # smaller pictures are enlarged to at least this, by a whole factor, without smoothing
GAP_PX = 8
CAPTION_PX = 12
TITLE_PX = 16
CAPTION_LINES = 4
COMPRESSED_CHARS = 200  # a text chunk longer than this is compressed
PAPER, INK, FADED = (255, 255, 255), (38, 38, 42), (128, 128, 134)
INFOTEXT = "parameters"  # the text chunk's name
QUALITY = 95  # of JPEG and WebP, when nobody says
_IMAGE_DESCRIPTION, _EXIF, _USER_COMMENT = 0x010E, 0x8769, 0x9286  # EXIF's tags
_JPEG_EXIF_BYTES = 65_533  # the most that one has room for
_PROMPTS = ("prompt", "negative_prompt")
_ENLARGED_PX = 512  # from this side on, PNGs are compressed with less effort: tenths of a second instead of seconds


def contact_sheet(
    pictures: Sequence[UInt8[np.ndarray, "_h _w c"]],
    captions: Sequence[str],
    *,
    columns: int | None = None,
    title: str | None = None,
) -> Image.Image:
    """Pictures in rows of `columns`, each with its caption below, wrapped and cut to fit; they may differ in size."""
    if len(pictures) != len(captions):
        raise ValueError(f"{len(pictures)} pictures came with {len(captions)} captions")
    columns = min(columns or nice_columns(len(pictures)), len(pictures))
    tiles = [tile(pixels, caption) for pixels, caption in zip(pictures, captions)]
    return sheet([tiles[i : i + columns] for i in range(0, len(tiles), columns)], title)


def picture_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], *, columns: int, title: str | None = None
) -> Image.Image:
    """Pictures of one size, as they are, in rows of `columns`, each with its caption below."""
    if len(pictures) != len(captions):
        raise ValueError(f"{len(pictures)} pictures came with {len(captions)} captions")
    tiles = [
        (picture, wrap(caption, width_px=picture.width, max_lines=CAPTION_LINES), caption)
        for picture, caption in zip(pictures, captions)
    ]
    return sheet([tiles[i : i + columns] for i in range(0, len(tiles), columns)], title)


def write_png(picture: Image.Image, path: str | Path, metadata: Mapping[str, Any]) -> Path:
    """Write one picture with `metadata` in its text chunks: strings as they are, the rest as JSON.

    The file appears under its name only when it is whole.
    """
    path = Path(path)
    with written(path) as partial:
        picture.save(partial, format="PNG", pnginfo=text_chunks(metadata))
    return path


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


def text_chunks(metadata: Mapping[str, Any]) -> PngImagePlugin.PngInfo:
    """`metadata` as a PNG's text chunks: strings as they are, the rest as JSON; long ones compressed.

    `parameters` come first and are never compressed, as the tools that read them expect.
    """
    chunks = PngImagePlugin.PngInfo()
    for key, value in sorted(metadata.items(), key=lambda entry: entry[0] != INFOTEXT):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text = text.encode("utf-8", "replace").decode()
        if key == INFOTEXT:
            chunks.add_text(key, text)
        else:
            chunks.add_itxt(key, text, zip=len(text) > COMPRESSED_CHARS)
    return chunks


def infotext(prompt: str, negative_prompt: str, fields: Mapping[str, Any]) -> str:
    """`parameters`: what a picture was painted from."""
    negative = f"\nNegative prompt: {negative_prompt}" if negative_prompt else ""
    return f"{prompt}{negative}\n" + ", ".join(f"{name}: {_quoted(value)}" for name, value in fields.items())


def model_hash(checkpoint: str) -> str:
    """The hash in a checkpoint's id: 3f9c21ab of `step_00000500-3f9c21ab`, and of `step_00000500-3f9c21ab-bf16`."""
    found = re.search(r"-([0-9a-f]{8})(?:-[a-z]+16)*$", checkpoint)
    return found[1] if found else checkpoint.rpartition("-")[2]


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text


def read_metadata(path: str | Path) -> dict[str, str]:
    """The text chunks of a PNG."""
    with Image.open(path) as picture:
        picture.load()
        return {key: str(value) for key, value in getattr(picture, "text", {}).items()}


def nice_columns(tiles: int) -> int:
    """A width for so many tiles: full rows where possible, rather wide than tall, 8 at most."""
    full = [width for width in range(2, 9) if tiles % width == 0 and width * width >= tiles]
    return full[0] if full else min(8, max(1, int(np.ceil(tiles**0.5))))


def wrap(text: str, *, width_px: int, max_lines: int, size_px: int = CAPTION_PX) -> list[str]:
    """`text` broken into lines of at most `width_px`, with an ellipsis where it had to be cut.

    Breaks at spaces, and inside a word only where the word alone is too wide.
    """
    lines, line = [], ""
    words = deque(text.split())
    while words and len(lines) <= max_lines:
        word = words.popleft()
        candidate = f"{line} {word}" if line else word
        if len(candidate) <= width_px and _width(candidate, size_px) <= width_px:
            line = candidate
        elif line:
            lines.append(line)
            line = ""
            words.appendleft(word)
        else:
            head = 1  # the longest start of the word that fits
            while head < min(len(word), width_px) and _width(word[: head + 1], size_px) <= width_px:
                head += 1
            lines.append(word[:head])
            words.appendleft(word[head:])
    lines = [*lines, line] if line else lines
    if len(lines) <= max_lines:
        return lines
    last = lines[max_lines - 1]
    while last and _width(f"{last}…", size_px) > width_px:
        last = last[:-1]
    return [*lines[: max_lines - 1], f"{last.rstrip()}…"]


# ---------------------------------------------------------------------- drawing

Tile = tuple[Image.Image, list[str], str]  # picture, caption lines, the whole caption


def tile(pixels: UInt8[np.ndarray, "h w c"], caption: str) -> Tile:
    picture = Image.fromarray(pixels)
    factor = max(1, -(-TILE_PX // round((picture.width * picture.height) ** 0.5)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    lines = wrap(caption, width_px=picture.width, max_lines=CAPTION_LINES)
    return picture, lines or ["(no caption)"], caption


def sheet(rows: list[list[Tile]], title: str | None) -> Image.Image:
    """Rows of tiles; where they differ in size, each stands in the middle of its column, on its row's line."""
    line_px = CAPTION_PX + 3
    width_px = max(picture.width for row in rows for picture, _, _ in row)
    tallest = [max(picture.height for picture, _, _ in row) for row in rows]
    heights = [
        height_px + 4 + line_px * max(len(lines) for _, lines, _ in row) for row, height_px in zip(rows, tallest)
    ]
    top = GAP_PX + (TITLE_PX + GAP_PX if title else 0)
    page = Image.new(
        "RGB",
        (GAP_PX + len(rows[0]) * (width_px + GAP_PX), top + sum(heights) + GAP_PX * len(rows)),
        PAPER,
    )
    pen = ImageDraw.Draw(page)
    if title:
        pen.text((GAP_PX, GAP_PX - 2), title, font=_font(TITLE_PX), fill=INK)
    y = top
    for row, height, height_px in zip(rows, heights, tallest):
        for place, (picture, lines, caption) in enumerate(row):
            x = GAP_PX + place * (width_px + GAP_PX)
            page.paste(picture, (x + (width_px - picture.width) // 2, y + height_px - picture.height))
            ink = INK if caption.strip() else FADED
            for number, line in enumerate(lines):
                pen.text((x, y + height_px + 2 + number * line_px), line, font=_font(CAPTION_PX), fill=ink)
        y += height + GAP_PX
    return page


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships: Latin with all accents, Greek, Cyrillic and more."""
    import matplotlib  # servers paint without it

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size_px)


def _width(text: str, size_px: int) -> float:
    return _font(size_px).getlength(text)
