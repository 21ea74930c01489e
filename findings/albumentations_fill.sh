#!/usr/bin/env bash
# albumentations 2.0.8, which is the last of its name, opencv-python-headless 4.14.0.94: `fill=255` is the value of what a transform leaves empty, for each of them
# described alike as a number or a tuple of them. One would guess that it paints white. `Rotate`, `Affine`, `Pad` and most others do. `Perspective`, `ElasticTransform`,
# `GridDistortion`, `OpticalDistortion` and `ThinPlateSpline` hand the number to OpenCV, which takes it for the first channel and 0 for the others: they paint red. In a
# collection on white ground, as drawings and clip art are, each augmented picture gets red corners, which a generator learns. Nothing is said. Write
# `fill=(255, 255, 255)`. AlbumentationsX 2.5.1, which goes on under another licence, paints white with both.
# Seen: what a grey picture has most beside its grey: Rotate, Affine, PadIfNeeded and CoarseDropout (255, 255, 255), the five (255, 0, 0); with a tuple all of them
# (255, 255, 255).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check albumentations==2.0.8 opencv-python-headless==4.14.0.94 numpy
NO_ALBUMENTATIONS_UPDATE=1 OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import albumentations as A
import cv2
import numpy as np

CONSTANT = cv2.BORDER_CONSTANT
TRANSFORMS = {
    "Rotate": lambda fill: A.Rotate((45, 45), border_mode=CONSTANT, fill=fill, p=1),
    "Affine": lambda fill: A.Affine(rotate=(45, 45), border_mode=CONSTANT, fill=fill, p=1),
    "PadIfNeeded": lambda fill: A.PadIfNeeded(96, 96, border_mode=CONSTANT, fill=fill, p=1),
    "CoarseDropout": lambda fill: A.CoarseDropout(fill=fill, p=1),
    "Perspective": lambda fill: A.Perspective((0.2, 0.2), fit_output=True, border_mode=CONSTANT, fill=fill, p=1),
    "ElasticTransform": lambda fill: A.ElasticTransform(alpha=300, sigma=10, border_mode=CONSTANT, fill=fill, p=1),
    "GridDistortion": lambda fill: A.GridDistortion(distort_limit=(0.9, 0.9), normalized=False, border_mode=CONSTANT, fill=fill, p=1),
    "OpticalDistortion": lambda fill: A.OpticalDistortion(distort_limit=(0.9, 0.9), border_mode=CONSTANT, fill=fill, p=1),
    "ThinPlateSpline": lambda fill: A.ThinPlateSpline(scale_range=(0.4, 0.4), border_mode=CONSTANT, fill=fill, p=1),
}
RED = {"Perspective", "ElasticTransform", "GridDistortion", "OpticalDistortion", "ThinPlateSpline"}


def painted(transform):
    """The colour that a grey picture has most beside its grey."""
    pixels = A.Compose([transform], seed=0)(image=np.full((64, 64, 3), 128, np.uint8))["image"].reshape(-1, 3)
    colours, counts = np.unique(pixels[(pixels != 128).any(axis=1)], axis=0, return_counts=True)
    return tuple(colours[counts.argmax()].tolist())


print(*(f"{name} {version(name)}" for name in ("albumentations", "opencv-python-headless")))
for name, transform in TRANSFORMS.items():
    number, three = painted(transform(255)), painted(transform((255, 255, 255)))
    print(f"{name}: fill=255 paints {number}, fill=(255, 255, 255) {three}")
    assert three == (255, 255, 255), (name, three)
    assert number == ((255, 0, 0) if name in RED else (255, 255, 255)), (name, number)
PY
