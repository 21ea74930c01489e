"""Every yaml of `conf/model/` builds, and its parts fit each other at the sizes they are meant for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from diffusion_art.config import build
from diffusion_art.models.text_encoder import OpenClipPretrained, OpenClipScratch
from tests.fakes import tiny_clip, toy_vae

CONF = Path(__file__).parents[2] / "conf" / "model"


def shelf(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def load(group: str, name: str):
    return OmegaConf.load(CONF / group / f"{name}.yaml")


# millions of weights and the image sizes in px, under Unshuffle2
MEANT_FOR = {
    "unet_tiny": (4.2, [32, 64]),
    "unet_small": (38, [64, 128]),
    "unet_base": (135, [128]),
    "jit_tiny": (3.9, [32, 64, 128]),
    "jit_small": (19.4, [32, 64, 128]),
    "jit_base": (119.5, [128, 64, 32]),
}


@pytest.mark.parametrize("name", shelf("backbone"))
def test_every_backbone_builds_at_its_sizes_and_is_as_large_as_it_says(name):
    millions, sizes = MEANT_FOR[name]
    for size in sizes:
        with torch.device("meta"):
            net = build(load("backbone", name))(
                channels=12, sample_size=size // 2, cross_attention_dim=192, pooled_dim=192
            )
        if size == sizes[0]:
            assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize("name", shelf("codec"))
def test_every_codec_builds(name, tmp_path):
    node = load("codec", name)
    if name == "vae":
        node.path = str(toy_vae(tmp_path))
    codec = build(node)
    assert codec.channels == (4 if name == "vae" else 3 * codec.factor**2)


def test_every_text_encoder_builds(tmp_path):
    assert shelf("text_encoder") == ["open_clip_pretrained", "open_clip_scratch", "pair", "transformers"]
    scratch = build(load("text_encoder", "open_clip_scratch"))
    assert isinstance(scratch, OpenClipScratch)
    assert 1e6 < sum(p.numel() for p in scratch.parameters()) < 2e6
    node = load("text_encoder", "open_clip_pretrained")
    node.pretrained = f"local-dir:{tiny_clip(tmp_path / 'clip')}"
    assert isinstance(build(node), OpenClipPretrained)
