"""`sources/embedded.py`: captions within picture files, and the way a build leads to them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusion_art.errors import UserError
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sources.detect import open_source
from diffusion_art.sources.embedded import embedded_caption
from tests.fakes_sources import encoded, picture, write_files
from tests.sources.folder.test_sidecars import DESCRIPTION, XMP

NOTED = "a castle\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Seed: 1"
COMFY = (
    '{"3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], "negative": ["7", 0]}},'
    ' "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a castle"}},'
    ' "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}}}'
)
SMALL = {"image_size_px": 16, "val_fraction": 0.0, "progress": False, "workers": 1}


def png(number: int = 0, **texts: str) -> bytes:
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    return encoded(picture(number), "PNG", pnginfo=info)


def jpeg_with(tags: dict[int, Any] | None = None, *, comment: bytes = b"", **options: Any) -> bytes:
    exif = Image.Exif()
    for tag, value in (tags or {}).items():
        exif[tag] = value
    if comment:
        exif.get_ifd(0x8769)[0x9286] = comment
    return encoded(picture(0), "JPEG", exif=exif, **options)


def webp_with(tags: dict[int, Any]) -> bytes:
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    return encoded(picture(0), "WEBP", exif=exif)


def with_iptc(caption: bytes) -> bytes:
    """A JPEG whose Photoshop segment holds an IPTC caption."""
    record = b"\x1c\x02\x78" + len(caption).to_bytes(2, "big") + caption
    record += b"\0" * (len(record) % 2)
    block = b"8BIM\x04\x04\0\0" + len(record).to_bytes(4, "big") + record
    segment = b"Photoshop 3.0\0" + block
    data = encoded(picture(0))
    return data[:2] + b"\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]


@pytest.mark.parametrize(
    ("data", "caption"),
    [
        (png(parameters=NOTED), "a castle"),
        (png(prompt='{"3": {"class_type": "KSampler"}}'), ""),
        (png(prompt=COMFY, workflow="{}"), "a castle"),
        (webp_with({0x010F: "workflow:{}", 0x0110: f"prompt:{COMFY}"}), "a castle"),
        (png(parameters='{"prompt": "a castle", "negative_prompt": "", "metadata_scheme": "fooocus"}'), "a castle"),
        (png(parameters='{"odd": 1}', Description="a house"), "a house"),
        (png(Dream='"a castle" -s 50 -S 123'), "a castle"),
        (png(Description="a castle --ar 3:2 --v 6 Job ID: 0d1f"), "a castle"),
        (jpeg_with({0x9286: '{"prompt": "a castle", "steps": 30}', 0x927C: "fooocus"}), "a castle"),
        (jpeg_with(comment=b"ASCII\0\0\0a red house"), "a red house"),
        (jpeg_with(comment=b"ASCII\0\0\0 0.1 -3 12"), ""),
        (png(invokeai_metadata='{"positive_prompt": "a lake", "seed": 1}'), "a lake"),
        (png(Description="a house", Title="House"), "a house"),
        (jpeg_with({0x010E: "a house"}), "a house"),
        (jpeg_with({0x010E: "SONY DSC", 0x9C9C: "ein Haus\0".encode("utf-16-le")}), "ein Haus"),
        (jpeg_with(comment=b"UNICODE\0" + NOTED.encode("utf-16-be")), "a castle"),
        (jpeg_with(comment=b"ASCII\0\0\0" + b"12:03:04"), ""),
        (jpeg_with({0x010E: "worse"}, xmp=XMP.format(DESCRIPTION.format("better")).encode()), "better"),
        (with_iptc("Häuser".encode()), "Häuser"),
        (encoded(picture(0)), ""),
        (b"no picture", ""),
        (picture(0), ""),
    ],
)
def test_captions_within_files(data: Any, caption: str) -> None:
    assert embedded_caption(data) == caption


def test_a_build_without_captions_says_that_they_lie_within_the_files(tmp_path: Path) -> None:
    write_files(tmp_path / "in", {f"{n}.png": png(n, parameters=f"castle {n}\nSteps: 2, Seed: 1") for n in range(3)})
    with pytest.raises(UserError, match=r"files of 3 of the first 3 hold captions.*caption_template='\{embedded\}'"):
        build_shards(open_source(tmp_path / "in"), tmp_path / "out", **SMALL)
    build_shards(open_source(tmp_path / "in"), tmp_path / "out", caption_template="{embedded}", **SMALL)
    shards = ShardSet.open(tmp_path / "out")
    assert [shards.captions("train", i) for i in range(3)] == [("castle 0",), ("castle 1",), ("castle 2",)]
    assert shards.metadata("train", 0)["embedded"] == "castle 0"


def test_a_broken_picture_holds_no_caption() -> None:
    data = io.BytesIO(png(parameters=NOTED)).getvalue()
    assert embedded_caption(data[:60]) == ""


@pytest.mark.parametrize(
    ("comment", "caption"),
    [
        ("a house by the sea", "a house by the sea"),
        ("CREATOR: gd-jpeg v1.0 (using IJG JPEG v62), quality = 90", ""),
        ("Created with GIMP", ""),
        ("File written by Adobe Photoshop 4.0", ""),
        ("42", ""),
    ],
)
def test_comments_of_jpeg(comment: str, caption: str) -> None:
    assert embedded_caption(encoded(picture(0), "JPEG", comment=comment)) == caption
