"""A VAE as codec: diffusers' own numbers, normalised; where it may lie; and nothing that a model would train."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny

from diffusion_art.config import build
from diffusion_art.errors import UserError
from diffusion_art.models.vae import Vae
from tests.fakes import toy_model, toy_vae, vae_config

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(3, 3, 16, 16, generator=GENERATOR) * 2 - 1


def test_latents_are_the_posteriors_means_shifted_and_scaled(tmp_path):
    folder = toy_vae(tmp_path / "vae", scaling_factor=0.5, shift_factor=0.25)
    codec, net = Vae(path=str(folder)), AutoencoderKL.from_pretrained(folder).eval()
    assert (codec.channels, codec.factor, codec.bounded) == (4, 2, False)
    with torch.no_grad():
        z = net.encode(IMAGES).latent_dist.mean
        torch.testing.assert_close(codec.encode(IMAGES), (z - 0.25) * 0.5)
        torch.testing.assert_close(codec.decode((z - 0.25) * 0.5), net.decode(z).sample)
    other = Vae(path=str(folder), scale=2.0, shift=0.0)
    torch.testing.assert_close(other.encode(IMAGES), 2 * z)
    assert other.sha256 != codec.sha256  # latents are not the same ones


def test_each_channel_may_have_its_own_mean_and_spread(tmp_path):
    folder = toy_vae(tmp_path, scaling_factor=1.0, latents_mean=(0.0, 1.0, 2.0, 3.0), latents_std=(1.0, 2.0, 4.0, 8.0))
    plain = Vae(path=str(folder), scale=1.0, shift=0.0).encode(IMAGES)
    mean, std = torch.arange(4.0)[:, None, None], torch.tensor([1.0, 2.0, 4.0, 8.0])[:, None, None]
    torch.testing.assert_close(Vae(path=str(folder)).encode(IMAGES), (plain - mean) / std)


TINY = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
OTHERS = [
    AutoencoderTiny(**TINY, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), scaling_factor=2.0),
    AutoencoderDC(
        latent_channels=4,
        **TINY,
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=2.0,
    ),
]


@pytest.mark.parametrize("net", OTHERS, ids=lambda net: type(net).__name__)
def test_other_kinds_of_diffusers(net, tmp_path):
    net.eval().save_pretrained(tmp_path)
    codec = Vae(path=str(tmp_path))
    with torch.no_grad():
        z = net.encode(IMAGES, return_dict=False)[0]
        torch.testing.assert_close(codec.encode(IMAGES), 2 * z)
        torch.testing.assert_close(codec.decode(2 * z), net.decode(z).sample)
    assert codec.encode(IMAGES).shape[1:] == (codec.channels, 16 // codec.factor, 16 // codec.factor)


def test_it_is_frozen_and_gradients_pass_through_its_decoder(tmp_path):
    model = toy_model(codec=vae_config(toy_vae(tmp_path)))
    codec = model.codec
    assert isinstance(codec, Vae)
    model.train()
    assert not codec.net.training
    assert not any("codec" in name for name in [*model.trainable_state(), *model.state_dict()])
    latents = codec.encode(IMAGES).requires_grad_()
    codec.decode(latents).sum().backward()
    assert latents.grad is not None
    assert latents.grad.any()
    assert all(p.grad is None for p in codec.net.parameters())


def test_few_pictures_at_a_time_are_the_same_pictures(tmp_path, monkeypatch):
    codec = Vae(path=str(toy_vae(tmp_path)))
    whole = codec.encode(IMAGES)
    monkeypatch.setattr("diffusion_art.models.vae.PIXELS_AT_ONCE", 300)
    torch.testing.assert_close(codec.encode(IMAGES), whole)
    assert codec.decode(whole).shape == IMAGES.shape


def test_autocast_leaves_its_precision_alone(tmp_path):
    codec = Vae(path=str(toy_vae(tmp_path)))
    alone = codec.encode(IMAGES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(codec.encode(IMAGES), alone)
    assert not torch.equal(Vae(path=str(tmp_path), precision="bf16").encode(IMAGES), alone)


def test_where_it_may_lie(tmp_path):
    """In a pipeline's folder, a run's, and the newest run of a folder of runs."""
    for number, run in enumerate(("first", "second")):
        toy_vae(tmp_path / "logs" / run / "vae", seed=number)
    second = Vae(path=str(tmp_path / "logs" / "second")).sha256
    assert Vae(path=str(tmp_path / "logs")).sha256 == second
    assert Vae(path=str(tmp_path / "logs" / "second"), subfolder="vae").sha256 == second
    assert Vae(path=str(tmp_path / "logs" / "first")).sha256 != second


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"path": "nowhere/at/all"}, "there is no VAE at model.codec.path=nowhere/at/all. Give the folder of one"),
        ({"path": "nobody/nothing"}, "the VAE of nobody/nothing cannot be had: no folder here, and no answer"),
        ({"path": "."}, "holds no VAE of diffusers: neither it nor its vae/ has a config.json"),
        ({"precision": "fp8"}, "model.codec.precision=fp8 is not one of fp32, bf16, auto"),
    ],
)
def test_what_is_not_there(changes, says, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says):
        build(vae_config(Path("x")) | changes)


def test_what_is_no_vae(tmp_path):
    folder = toy_vae(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"_class_name": "UNet2DModel"}))
    with pytest.raises(UserError, match="holds a UNet2DModel, and a codec can be made of AutoencoderKL,"):
        Vae(path=str(folder))
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match="cannot be loaded"):
        Vae(path=str(folder))
