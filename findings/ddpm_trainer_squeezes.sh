#!/usr/bin/env bash
# denoising-diffusion-pytorch 2.3.4, torch 2.14.1, torchvision 0.29.1, pillow 13.0.0: `Trainer(diffusion, folder)` reads a folder of pictures through the package's
# `Dataset`, which resizes the shorter side and cuts the middle out, as the two transforms in it say. One would guess that a training sees the middle of each picture
# with its shapes as they are. `GaussianDiffusion` keeps `image_size=64` as (64, 64), and the trainer hands that on: `Resize((64, 64))` squeezes the whole picture
# into a square and leaves the crop nothing to cut. A landscape of 3 : 1 is three times as narrow as it was, circles are ellipses, and the network learns to paint so.
# `Dataset(folder, 64)` with a number crops. Nothing is said, and FID does not notice, since its real pictures come from the same loader. Cut the pictures to squares
# beforehand, or build the loader with `Dataset(folder, 64)`, a number.
# Seen: a disc 100 wide and high in the middle of pictures of 300 x 100 and 100 x 300, at 50: trainer 16 x 50 and 50 x 16; Dataset(folder, 50) 50 x 50 for both.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 denoising-diffusion-pytorch==2.3.4 pillow==13.0.0 numpy
cd "$work" && OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version
from pathlib import Path

from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet
from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Dataset
from PIL import Image, ImageDraw

SIZE, PICTURES = 50, 100
SHAPES = {"wide": (300, 100), "high": (100, 300)}


def painted(shape, folder):
    """A folder of equal pictures: a white disc that fills the middle of a black one."""
    width, height = shape
    picture = Image.new("RGB", shape)
    left, top = (width - 100) // 2, (height - 100) // 2
    ImageDraw.Draw(picture).ellipse((left, top, left + 99, top + 99), fill="white")
    folder.mkdir()
    for number in range(PICTURES):
        picture.save(folder / f"{number}.png")
    return folder


def extent(picture):
    """How wide and how high the disc is, in pixels."""
    bright = picture[0] > 0.5
    return int(bright.any(dim=0).sum()), int(bright.any(dim=1).sum())


print(*(f"{name} {version(name)}" for name in ("denoising-diffusion-pytorch", "torch", "pillow")))
for name, shape in SHAPES.items():
    folder = painted(shape, Path(name))
    diffusion = GaussianDiffusion(Unet(dim=8, dim_mults=(1,), flash_attn=False), image_size=SIZE)
    trainer = Trainer(diffusion, str(folder), calculate_fid=False, augment_horizontal_flip=False)
    seen, cropped = extent(trainer.ds[0]), extent(Dataset(str(folder), SIZE)[0])
    print(f"{name}, {shape[0]} x {shape[1]}: disc in the trainer {seen[0]} x {seen[1]}, in Dataset(folder, {SIZE}) {cropped[0]} x {cropped[1]}")
    assert min(cropped) > 0.95 * SIZE, cropped
    assert max(seen) > 0.95 * SIZE and min(seen) < 0.4 * SIZE, seen
PY
