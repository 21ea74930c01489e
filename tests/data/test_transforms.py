"""From decoded pixels to what training sees, with augmentation that depends on the position alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion_art.data.transforms import Augmentation, to_float
from diffusion_art.randomness import uniforms


def test_floats_are_those_of_the_formula_in_single_precision():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    floats = to_float(values)
    assert floats.dtype == torch.float32
    expected = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)
    for row in floats.reshape(6, 256):
        np.testing.assert_array_equal(row.numpy(), expected)
    assert (float(floats.min()), float(floats.max())) == (-1.0, 1.0)


def test_floats_keep_the_layout_in_which_the_pictures_were_decoded():
    rows = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    images = rows.permute(0, 3, 1, 2)
    assert to_float(images).stride() == images.stride()
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
def test_floats_are_the_same_numbers_on_the_gpu():
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(to_float(values.cuda()).cpu(), to_float(values))


def test_augmentation_is_a_function_of_the_position():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (40, 16, 16, 3), dtype=np.uint8)
    positions = np.arange(100, 140)
    augment = Augmentation(horizontal_flip=0.5, min_crop=0.7)
    whole, parts, other = images.copy(), images.copy(), images.copy()
    augment(whole, seed=3, positions=positions)
    augment(parts[:13], seed=3, positions=positions[:13])
    augment(parts[13:], seed=3, positions=positions[13:])
    augment(other, seed=4, positions=positions)
    np.testing.assert_array_equal(whole, parts)
    assert not np.array_equal(whole, other)
    assert not np.array_equal(whole, images)


def test_crops_are_squares_cut_and_resized():
    """Of a picture whose colour is its place, a crop shows a range of places, in order."""
    ramp = np.broadcast_to(np.arange(0, 256, 16, dtype=np.uint8)[None, :, None], (16, 16, 3))
    images = np.stack([ramp] * 50)
    Augmentation(min_crop=0.5)(images, seed=0, positions=np.arange(50))
    spans = images[:, 8, -1, 0].astype(int) - images[:, 8, 0, 0]
    assert spans.min() >= 80
    assert spans.max() <= 240
    assert len(set(spans.tolist())) > 5


def test_half_of_the_pictures_are_mirrored():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    images = np.stack([image] * 2000)
    Augmentation(horizontal_flip=0.5)(images, seed=0, positions=np.arange(2000))
    mirrored = (images == image[:, ::-1]).all((1, 2, 3))
    assert (mirrored | (images == image).all((1, 2, 3))).all()
    assert 0.46 < mirrored.mean() < 0.54


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
