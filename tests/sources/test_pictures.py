"""`sources/pictures.py`: every odd kind of picture file comes out as upright RGB, or as a named reason."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from diffusion_art.errors import UserError
from diffusion_art.sources.pictures import BadPictureError, check_fit, encode_jpeg, load_picture
from tests.fakes_sources import encoded, picture
from tests.sources.hostile import jpeg_of

RED, GREEN, BLUE, WHITE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)


def load(data: bytes | np.ndarray, size: int = 16, fit: str = "crop") -> np.ndarray:
    image, _ = load_picture(data, image_size_px=size, fit=fit)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    return image


def near(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 6) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= tolerance)


def half(mode: str, left, right, size: tuple[int, int] = (32, 32)) -> Image.Image:
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def flat_png(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises width x height."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + part(b"IDAT", zlib.compress(b"\0" * 1000)) + part(b"IEND", b"")


KINDS = {
    "rgb-png": (encoded(half("RGB", RED, BLUE), "PNG"), RED, BLUE),
    "rgba-clear-is-white": (encoded(half("RGBA", (*RED, 255), (0, 0, 0, 0)), "PNG"), RED, WHITE),
    "rgba-half-clear": (encoded(half("RGBA", (*RED, 255), (255, 0, 0, 128)), "PNG"), RED, (255, 127, 127)),
    "grey-alpha": (encoded(half("LA", (128, 255), (0, 0)), "PNG"), GREY, WHITE),
    "palette": (encoded(half("RGB", RED, GREEN).quantize(4), "PNG"), RED, GREEN),
    "grey": (encoded(half("L", 128, 255), "PNG"), GREY, WHITE),
    "one-bit": (encoded(half("1", 0, 1), "PNG"), (0, 0, 0), WHITE),
    "cmyk-jpeg": (encoded(half("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)), "JPEG", quality=95), RED, BLUE),
    "cmyk-tiff": (encoded(half("CMYK", (0, 255, 255, 0), (0, 0, 0, 0)), "TIFF"), RED, WHITE),
    "webp": (encoded(half("RGB", RED, BLUE), "WEBP", lossless=True), RED, BLUE),
    "lab-tiff": (encoded(half("LAB", (255, 128, 128), (0, 128, 128)), "TIFF"), WHITE, (0, 0, 0)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_out_as_right_rgb(kind: str) -> None:
    data, left, right = KINDS[kind]
    image = load(data)
    assert near(image[8, 2], left), image[8, 2]
    assert near(image[8, 13], right), image[8, 13]


def test_palette_with_transparency_goes_over_white() -> None:
    image = half("P", 0, 1)
    image.putpalette([*RED, *GREEN] + [0] * 762)
    data = encoded(image, "PNG", transparency=1)
    assert near(load(data)[8, 2], RED)
    assert near(load(data)[8, 13], WHITE)


def test_a_transparent_colour_of_an_rgb_png_goes_over_white() -> None:
    data = encoded(half("RGB", RED, GREEN), "PNG", transparency=GREEN)
    assert near(load(data)[8, 13], WHITE)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_range(format: str) -> None:
    ramp = np.repeat(np.linspace(0, 65535, 16).astype(np.uint16)[None], 16, axis=0)
    image = load(encoded(Image.fromarray(ramp), format))
    np.testing.assert_allclose(image[8, :, 0].astype(int), np.linspace(0, 255, 16), atol=1)


@pytest.mark.parametrize("peak", [1.0, 255.0, 65535.0])
def test_float_tiffs_are_scaled_by_their_peak(peak: float) -> None:
    ramp = np.repeat(np.linspace(0, peak, 16, dtype=np.float32)[None], 16, axis=0)
    image = load(encoded(Image.fromarray(ramp), "TIFF"))
    np.testing.assert_allclose(image[8, :, 0].astype(int), np.linspace(0, 255, 16), atol=1)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_counts(format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100)
    assert near(load(data)[8, 8], RED, 30)


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, (0, 0)), (2, (0, 1)), (3, (1, 1)), (6, (0, 1)), (8, (1, 0)), (9, (0, 0)), (65535, (0, 0))],
)
def test_exif_rotation_is_applied(orientation: int, corner: tuple[int, int]) -> None:
    """The stored top left corner is red; where it belongs depends on the orientation, if it is one."""
    image = Image.new("RGB", (48, 32), WHITE)
    image.paste(RED, (0, 0, 24, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "JPEG", exif=exif, quality=95)
    loaded, original = load_picture(data, image_size_px=16, fit="stretch")
    assert original == ((32, 48) if 5 <= orientation <= 8 else (48, 32))
    reds = [(y, x) for y in (0, 1) for x in (0, 1) if near(loaded[3 + 9 * y, 3 + 9 * x], RED, 30)]
    assert reds == [corner]


def test_an_embedded_colour_profile_is_honoured() -> None:
    """An sRGB profile with the primaries of red and blue swapped turns red pixels blue."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * profile[131], 12)}
    red, blue = entries[b"rXYZ"] + 4, entries[b"bXYZ"] + 4
    profile[red : red + 8], profile[blue : blue + 8] = profile[blue : blue + 8], profile[red : red + 8]
    image = Image.new("RGB", (16, 16), RED)
    assert near(load(encoded(image, "PNG", icc_profile=bytes(profile)))[8, 8], BLUE)
    assert near(load(encoded(image, "PNG", icc_profile=b"not a profile"))[8, 8], RED)
    grey = Image.new("L", (16, 16), 128)
    assert near(load(encoded(grey, "PNG", icc_profile=bytes(profile)))[8, 8], GREY)  # wrong space: left alone


def test_fits() -> None:
    wide = np.full((20, 60, 3), 255, np.uint8)
    wide[:, :20], wide[:, 20:40], wide[:, 40:] = RED, GREEN, BLUE
    crop, letterbox, stretch = (load(wide, 30, fit) for fit in ("crop", "letterbox", "stretch"))
    assert all(near(crop[y, x], GREEN) for y in (1, 28) for x in (4, 25))
    assert [near(stretch[15, x], colour) for x, colour in ((3, RED), (15, GREEN), (26, BLUE))] == [True] * 3
    assert [near(letterbox[15, x], colour) for x, colour in ((3, RED), (15, GREEN), (26, BLUE))] == [True] * 3
    assert near(letterbox[2, 15], WHITE)
    assert near(letterbox[27, 15], WHITE)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_letterbox_bars_are_white_in_every_mode(mode: str) -> None:
    image = load(encoded(Image.new(mode, (60, 20), 0 if mode == "L" else None), "TIFF"), 30, "letterbox")
    assert near(image[1, 15], WHITE)


def test_a_picture_may_be_one_pixel_wide() -> None:
    for fit in ("crop", "letterbox", "stretch"):
        load(encoded(Image.new("RGB", (1, 3000), RED), "PNG"), 16, fit)


def test_scaled_jpeg_decoding_changes_next_to_nothing() -> None:
    data = encoded(picture(3, width=800, height=640), "JPEG", quality=95)
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    difference = np.abs(load(data, 32).astype(int) - load(whole, 32).astype(int))
    assert difference.mean() < 1.0


def test_an_array_of_the_wanted_size_is_kept_as_it_is() -> None:
    image = picture(1, width=16, height=16)
    np.testing.assert_array_equal(load(image), image)


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_of_another_kind_are_refused(array: np.ndarray) -> None:
    with pytest.raises(BadPictureError, match="is not uint8"):
        load_picture(array, image_size_px=16)


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (7_072, 7_072), (65_000, 65_000)])
def test_a_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(BadPictureError, match="cap of 50 megapixels"):
        load_picture(flat_png(width, height), image_size_px=16)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "known format"),
        (b"hello, I am no picture", "known format"),
        (encoded(picture(0), "JPEG")[:400], "Truncated"),
        (encoded(picture(0, width=200, height=200), "JPEG")[:-400], "truncated"),
        (encoded(picture(0, width=200, height=200), "PNG")[:500], "truncated"),
        (encoded(picture(0), "PNG").replace(b"IDAT", b"IDAX"), "known format"),
        (encoded(half("RGB", RED, BLUE), "EPS"), "known format"),  # Pillow would start Ghostscript for it
    ],
)
def test_broken_files_give_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadPictureError, match=reason):
        load_picture(data, image_size_px=16)


MUTABLE = [
    encoded(picture(0), "JPEG"),
    encoded(half("P", 0, 1), "GIF"),
    encoded(half("RGBA", (*RED, 255), (0, 0, 0, 0)), "PNG"),
    encoded(picture(1), "WEBP"),
    encoded(picture(2), "TIFF"),
]


@settings(max_examples=150, deadline=None)
@given(
    data=st.sampled_from(MUTABLE),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
)
def test_damage_never_raises_anything_else(data: bytes, cut: float, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(data[: round(cut * len(data))])
    for place, value in changes:
        if damaged:
            damaged[place % len(damaged)] = value
    with suppress(BadPictureError):
        load(bytes(damaged))


def test_jpegs_keep_full_chroma_up_to_128_px() -> None:
    def sampling(jpeg: bytes) -> int:
        start = jpeg.index(b"\xff\xc0")
        return jpeg[start + 11]  # of the luma component: 0x11 is 4:4:4, 0x22 is 4:2:0

    assert sampling(encode_jpeg(picture(0, width=128, height=128))) == 0x11
    assert sampling(encode_jpeg(picture(0, width=129, height=129))) == 0x22


def test_jpegs_come_close_and_are_repeatable() -> None:
    image = picture(5, width=32, height=32)
    jpeg = encode_jpeg(image)
    assert jpeg == encode_jpeg(image.copy())
    assert np.abs(np.asarray(Image.open(io.BytesIO(jpeg))).astype(int) - image).mean() < 3


def test_an_unknown_fit_names_the_choices() -> None:
    with pytest.raises(UserError, match=r"fit=cover is not a way.*crop, letterbox, stretch"):
        check_fit("cover")


def test_a_jpeg_over_the_cap_is_decoded_at_a_smaller_scale() -> None:
    data = encoded(half("L", 0, 255, (2400, 1600)))
    image, original = load_picture(data, image_size_px=16, max_megapixels=0.5)
    assert original == (2400, 1600)
    assert near(image[8, 2], (0, 0, 0))
    assert near(image[8, 13], WHITE)
    large, _ = load_picture(data, image_size_px=1200, max_megapixels=0.5)  # more than the cap leaves of it
    assert large.shape == (1200, 1200, 3)


def test_the_cap_is_a_setting_and_holds_for_other_formats() -> None:
    data = encoded(half("RGB", RED, BLUE, (1000, 600)), "PNG")
    with pytest.raises(BadPictureError, match=r"1000 x 600 pixels, over the cap of 0\.5 megapixels"):
        load_picture(data, image_size_px=16, max_megapixels=0.5)
    assert load_picture(data, image_size_px=16, max_megapixels=0.6)[1] == (1000, 600)


def test_pillows_own_limit_gives_way_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    load_picture(encoded(picture(0)), image_size_px=16)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_large_jpeg_of_next_to_no_bytes_is_refused() -> None:
    data = jpeg_of(20_000, 10_000)
    with pytest.raises(BadPictureError, match=r"20000 x 10000 pixels, over the cap of 50 megapixels, in \d+ bytes"):
        load_picture(data, image_size_px=16)


def test_a_progressive_jpeg_far_over_the_cap_is_refused() -> None:
    """All of its coefficients would lie in memory, however small it is decoded."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 900), dtype=np.uint8)
    load_picture(encoded(Image.fromarray(noise), progressive=True), image_size_px=16, max_megapixels=0.2)
    with pytest.raises(BadPictureError, match="over the cap"):
        load_picture(encoded(Image.fromarray(noise), progressive=True), image_size_px=16, max_megapixels=0.1)


def test_avif_is_read_and_heic_with_its_extra() -> None:
    assert near(load(encoded(half("RGB", RED, BLUE, (64, 64)), "AVIF"))[8, 2], RED, 30)
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(half("RGB", RED, BLUE, (64, 64))).save(buffer, quality=90)
    assert near(load(buffer.getvalue())[8, 2], RED, 30)
    assert near(load(buffer.getvalue())[8, 13], BLUE, 30)
