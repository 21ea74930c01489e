"""Bytes to pixels, and augmentation that depends on the position alone."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_art.data.transforms import Augmentation, BadPicture, decode, fit, to_tensor, uniforms


def _encoded(picture: np.ndarray, kind: str) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, kind, **({"quality": 98, "subsampling": 0} if kind == "JPEG" else {}))
    return buffer.getvalue()


@pytest.fixture
def picture() -> np.ndarray:
    y, x = np.mgrid[0:24, 0:24]
    return np.stack([x * 10, y * 10, (x + y) * 5], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_decodes_what_shards_may_hold(picture, kind):
    decoded = decode(_encoded(picture, kind))
    assert decoded.shape == picture.shape
    assert np.abs(decoded.astype(int) - picture).mean() < 4


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0nonsense", b"not a picture at all"])
def test_says_when_bytes_are_no_picture(data):
    with pytest.raises(BadPicture):
        decode(data)


def test_a_jpeg_cut_short_is_bad(picture):
    noisy = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = _encoded(noisy, "JPEG")
    with pytest.raises(BadPicture):
        decode(data[: len(data) // 2])


def test_fit_crops_the_centre():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    assert (fit(wide, 8) == 255).all()
    assert fit(wide, 16).shape == (16, 16, 3)


def test_tensor_range():
    images = to_tensor([np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)])
    assert images.dtype == torch.float32
    assert images[0].unique().tolist() == [-1.0]
    assert images[1].unique().tolist() == [1.0]


def test_augmentation_is_a_function_of_the_position():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (16, 16, 3), dtype=np.uint8) for _ in range(40)]
    positions = np.arange(100, 140)
    augment = Augmentation(horizontal_flip=0.5, min_crop=0.7)
    whole = augment(images, seed=3, positions=positions)
    parts = augment(images[:13], seed=3, positions=positions[:13]) + augment(
        images[13:], seed=3, positions=positions[13:]
    )
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
    another = augment(images, seed=4, positions=positions)
    assert any(not np.array_equal(one, other) for one, other in zip(whole, another, strict=True))


def test_half_of_the_pictures_are_mirrored():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    flipped = Augmentation(horizontal_flip=0.5)([image] * 2000, seed=0, positions=np.arange(2000))
    share = np.mean([not np.array_equal(out, image) for out in flipped])
    assert 0.46 < share < 0.54


def test_uniforms_are_uniform_and_streams_independent():
    positions = np.arange(20_000)
    first, second = uniforms(0, positions, stream=0), uniforms(0, positions, stream=1)
    assert abs(first.mean() - 0.5) < 0.01
    assert np.histogram(first, 10, (0, 1))[0].min() > 1850
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


@pytest.mark.parametrize("settings", [{"horizontal_flip": 1.5}, {"min_crop": 0.0}])
def test_refuses_impossible_settings(settings):
    with pytest.raises(ValueError, match="not"):
        Augmentation(**settings)
