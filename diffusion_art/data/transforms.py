"""Bytes to pixels: decode, fit to size, augment. Images leave here as floats in [-1, 1].

Every random choice is a pure function of (seed, position in the endless order), so the picture a run sees at a
position does not depend on ranks, workers, or where the run was interrupted.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import simplejpeg
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

JPEG_MAGIC = b"\xff\xd8"


class BadPicture(Exception):
    """The bytes of one sample are no picture we can read."""


def decode(data: bytes | memoryview) -> np.ndarray:
    """RGB uint8 `h w 3` from stored bytes: simplejpeg for JPEG, Pillow for the rest.

    Raises:
        BadPicture: the bytes are no picture, or are cut short.
    """
    try:
        if bytes(data[:2]) == JPEG_MAGIC:
            return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
        with Image.open(BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (ValueError, OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadPicture(str(error)) from error


def fit(image: np.ndarray, size_px: int) -> np.ndarray:
    """Square `size_px` picture: untouched when it already is, else centre-cropped and resized (Lanczos)."""
    height, width = image.shape[:2]
    if height == width == size_px:
        return image
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(square.resize((size_px, size_px), Image.Resampling.LANCZOS, reducing_gap=3.0))


def uniforms(seed: int, positions: np.ndarray, *, stream: int) -> np.ndarray:
    """One number in [0, 1) per position: SplitMix64 of (seed, stream, position), so no state is carried.

    `stream` keeps different uses (flip, crop, ...) independent of each other.
    Paper: Steele, Lea & Flood 2014, Fast splittable pseudorandom number generators, https://doi.org/10.1145/2660193.2660195
    """
    with np.errstate(over="ignore"):
        key = _mix(np.array(seed & (2**64 - 1), np.uint64) + np.uint64(stream) * np.uint64(0xD1B54A32D192ED03))
        bits = _mix(_mix(positions.astype(np.uint64) ^ key) + key)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: np.ndarray | np.uint64) -> np.ndarray | np.uint64:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Augmentation:
    """Mirror and random zoom of training pictures, each drawn from the sample's position.

    `horizontal_flip` is the probability of a mirror image. `min_crop` below 1 cuts a random square of side
    between `min_crop` and 1 of the picture's and resizes it back.
    """

    def __init__(self, *, horizontal_flip: float = 0.0, min_crop: float = 1.0) -> None:
        if not 0.0 <= horizontal_flip <= 1.0:
            raise ValueError(f"horizontal_flip is a probability from 0 to 1, not {horizontal_flip}")
        if not 0.1 <= min_crop <= 1.0:
            raise ValueError(f"min_crop is a share of the side from 0.1 to 1, not {min_crop}")
        self.horizontal_flip = horizontal_flip
        self.min_crop = min_crop

    def __call__(self, images: list[np.ndarray], *, seed: int, positions: np.ndarray) -> list[np.ndarray]:
        """`images` are `h w 3`, one per position."""
        images = list(images)
        if self.min_crop < 1.0:
            side, left, top = (uniforms(seed, positions, stream=stream) for stream in (1, 2, 3))
            images = [self._crop(*row) for row in zip(images, side, left, top, strict=True)]
        if self.horizontal_flip > 0.0:
            mirrored = uniforms(seed, positions, stream=0) < self.horizontal_flip
            images = [image[:, ::-1] if flip else image for image, flip in zip(images, mirrored, strict=True)]
        return images

    def _crop(self, image: np.ndarray, side: float, left: float, top: float) -> np.ndarray:
        size = image.shape[0]
        cut = max(1, round(size * (self.min_crop + (1.0 - self.min_crop) * side)))
        x, y = round((size - cut) * left), round((size - cut) * top)
        piece = Image.fromarray(np.ascontiguousarray(image[y : y + cut, x : x + cut]))
        return np.asarray(piece.resize((size, size), Image.Resampling.BICUBIC))


def to_tensor(images: list[np.ndarray]) -> Float[Tensor, "b 3 h w"]:
    """Stack `h w 3` uint8 pictures into one float batch in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(images))
    return stacked.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1.0)
