"""Stored bytes into rows of a batch, whatever size and format they have."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from diffusion_art.shards import pixels
from diffusion_art.shards.pixels import PAYLOADS, BadPicture, copy_into, decode, decode_into, fit
from diffusion_art.sources.pictures import load_picture


def encoded(picture: np.ndarray, kind: str) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, kind, **({"quality": 98, "subsampling": 0} if kind == "JPEG" else {}))
    return buffer.getvalue()


def gradient(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 200 // width, y * 200 // height, (x + y) * 100 // (height + width)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_decodes_what_shards_may_hold(kind: str):
    picture = gradient(24, 24)
    decoded = decode(encoded(picture, kind))
    assert decoded.shape == picture.shape
    assert np.abs(decoded.astype(int) - picture).mean() < 4


def test_what_others_send_is_read_as_prepare_reads_it():
    """Transparency is white, 16 bits are eight, and a camera's picture stands upright."""
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    wide = Image.fromarray(np.full((8, 8), 0x80FF, np.uint16))
    lying = Image.fromarray(gradient(8, 24))
    orientation = Image.Exif()
    orientation[0x0112] = 6
    for picture, kind, options in ((clear, "PNG", {}), (wide, "PNG", {}), (lying, "JPEG", {"exif": orientation})):
        buffer = BytesIO()
        picture.save(buffer, kind, **options)
        expected, (width, height) = load_picture(buffer.getvalue(), image_size_px=8)
        decoded = decode(buffer.getvalue())
        assert decoded.shape == (height, width, 3)
        row = np.zeros((8, 8, 3), np.uint8)
        decode_into(buffer.getvalue(), row)
        assert np.abs(row.astype(int) - expected).max() <= 4
        assert np.abs(row.astype(int) - fit(decoded, (8, 8))).max() == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("shape", [(16, 16), (8, 8), (48, 48), (12, 40), (40, 12), (4, 64)])
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_a_row_is_what_decoding_and_fitting_gives(kind: str, shape: tuple[int, int], wrap: type):
    """Of the right size, smaller, larger, and of as many bytes but another shape."""
    data = encoded(gradient(*shape), kind)
    rows = np.full((3, 16, 16, 3), 7, np.uint8)
    decode_into(wrap(data), rows[1])
    np.testing.assert_array_equal(rows[1], fit(decode(data), (16, 16)))
    assert (rows[[0, 2]] == 7).all()


def test_a_row_of_the_right_size_is_decoded_in_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pixels, "fit", None)
    row = np.zeros((16, 16, 3), np.uint8)
    decode_into(encoded(gradient(16, 16), "JPEG"), row)
    assert row.any()


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_jpeg_some_times_too_large_is_decoded_small_in_place(shrink: int, monkeypatch: pytest.MonkeyPatch):
    """And is what the means of its blocks are."""
    size = 16 * shrink
    data = encoded(gradient(size, size), "JPEG")
    row = np.zeros((16, 16, 3), np.uint8)
    means = fit(decode(data), (16, 16))
    with monkeypatch.context() as patch:
        patch.setattr(pixels, "fit", None)
        decode_into(data, row)
    assert np.abs(row.astype(int) - means).max() <= 3
    exact = decode(data).astype(float).reshape(16, shrink, 16, shrink, 3).mean((1, 3))
    assert np.abs(means - exact).max() <= 0.5


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0nonsense", b"not a picture at all", b"\x89PNG\r\n\x1a\n"])
def test_says_when_bytes_are_no_picture(data: bytes):
    with pytest.raises(BadPicture):
        decode(data)
    with pytest.raises(BadPicture):
        decode_into(memoryview(data), np.empty((16, 16, 3), np.uint8))


def test_a_jpeg_cut_short_is_bad():
    noisy = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(noisy, "JPEG")
    for size in (64, 16, 128):
        with pytest.raises(BadPicture):
            decode_into(data[: len(data) // 2], np.empty((size, size, 3), np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_over_the_limit_is_refused_by_its_header(kind: str, monkeypatch: pytest.MonkeyPatch):
    data = encoded(gradient(40, 60), kind)
    assert decode(data).shape == (40, 60, 3)
    monkeypatch.setattr(pixels, "MAX_PIXELS", 2399)
    with pytest.raises(BadPicture, match="2,400 pixels is over the limit of 2,399"):
        decode(data)
    with pytest.raises(BadPicture, match="over the limit"):
        decode_into(data, np.empty((16, 16, 3), np.uint8))


def test_no_format_that_runs_programs_is_opened(monkeypatch: pytest.MonkeyPatch):
    Image.init()
    opened: list[object] = []
    monkeypatch.setitem(Image.OPEN, "EPS", (lambda file, _: opened.append(file), lambda _: True))
    with pytest.raises(BadPicture):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    assert opened == []


def test_fit_crops_the_centre():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    assert (fit(wide, (8, 8)) == 255).all()
    assert fit(wide, (16, 16)).shape == (16, 16, 3)


@pytest.mark.parametrize("size", [16, 8, 32])
def test_pixels_are_copied_and_fitted(size: int):
    picture = gradient(16, 16)
    row = np.zeros((size, size, 3), np.uint8)
    copy_into(picture.tobytes(), row)
    np.testing.assert_array_equal(row, fit(picture, (size, size)))


@pytest.mark.parametrize("length", [0, 1, 2, 47, 3 * 16 * 15])
def test_pixels_of_no_square_are_bad(length: int):
    with pytest.raises(BadPicture, match=f"{length} bytes"):
        copy_into(bytes(length), np.empty((4, 4, 3), np.uint8))


def test_both_codecs_give_the_same_row():
    data = encoded(gradient(16, 16), "JPEG")
    rows = np.zeros((2, 16, 16, 3), np.uint8)
    PAYLOADS["jpeg"].unpack(data, rows[0])
    PAYLOADS["u8"].unpack(decode(data).tobytes(), rows[1])
    np.testing.assert_array_equal(*rows)
