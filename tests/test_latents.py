"""The whole path by the real commands: an autoencoder, a model on its latents, and pictures where its folder is not."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from diffusion_art.checkpoints import find_checkpoint, load_text_to_image, read_checkpoint
from diffusion_art.diffusion.objective import Reconstruction
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.errors import UserError
from diffusion_art.models.autoencoder import Autoencoder
from diffusion_art.models.vae import Vae
from diffusion_art.record import KEY
from diffusion_art.runs import load_run
from diffusion_art.tensors import Batch
from diffusion_art.training.noise import POSTERIOR, noise_at
from diffusion_art.training.plain_steps import AutoencoderStep
from diffusion_art.training.terms.perceptual import Perceptual
from diffusion_art.training.terms.term import Term
from tests.fakes import MODEL_CONFIG, SAMPLER_CONFIG, SmallTower, toy_model, toy_vae, vae_config, write_checkpoint


def paint(model: Any) -> torch.Tensor:
    return model.generate(["red"], seeds=[3], sampler=Euler(num_steps=2), guidance_scale=2.0)


def latent_run(folder: Path, *, vae: Path) -> Path:
    """A checkpoint as training writes it."""
    codec = vae_config(vae)
    model = toy_model(codec=codec)
    config = {"model": {**MODEL_CONFIG, "codec": codec}, "sampler": SAMPLER_CONFIG, "prompts": ["red"]}
    held = {**(model.codec.describe() or {}), "weights": model.codec.kept()}
    return write_checkpoint(folder / "checkpoints" / "step_00000005.ckpt", model, config=config, codec=held)


def test_a_checkpoint_and_its_exported_file_paint_where_the_folder_is_not(tmp_path, run_here):
    checkpoint = latent_run(tmp_path / "run", vae=toy_vae(tmp_path / "vae", scaling_factor=0.5))
    here = paint(load_text_to_image(checkpoint))
    assert run_here("export", f"run={checkpoint}", "path=own.safetensors")[0] == 0
    shutil.rmtree(tmp_path / "vae")
    for file in (checkpoint, tmp_path / "own.safetensors"):
        model = load_text_to_image(file)
        assert torch.equal(paint(model), here)
        assert isinstance(model.codec, Vae)
        assert model.codec.sha256 == read_checkpoint(file)[KEY]["codec"]["sha256"]
    assert str(tmp_path).encode() not in (tmp_path / "own.safetensors").read_bytes()
    status, _, complaints = run_here("export", f"run={checkpoint}", "format=onnx")
    assert status == 1
    assert "format=onnx has no place for the decoder of a VAE: take format=diffusers or format=file." in complaints


def test_other_latents_lead_nowhere(tmp_path):
    model = toy_model(codec=vae_config(toy_vae(tmp_path / "vae")))
    other = toy_model(codec=vae_config(toy_vae(tmp_path / "other", seed=1)))
    with pytest.raises(UserError, match="the guide diffuses Vae latents"):
        model.generate(["red"], seeds=[0], sampler=Euler(num_steps=1), guidance_scale=2.0, guide=other)
    assert len(model.generate(["red"], seeds=[0], sampler=Euler(num_steps=1), guidance_scale=2.0, guide=model)) == 1


AUTOENCODER = [
    *("+experiment=autoencoder", "data.url=shards", "data.num_workers=0", "data.image_size_px=16", "perceptual=none"),
    *(
        "model.block_channels=[8,8]",
        "model.norm_groups=4",
        "model.latent_channels=4",
        "data.global_batch_size=8",
        "data.val_samples=8",
    ),
    *("trainer.val_check_interval=2", "trainer.log_every_n_steps=1", "callbacks.checkpoints.keep_last=-1"),
    *("callbacks.checkpoints.every_n_steps=2", "callbacks.progress=null", "callbacks.loss_plot=null"),
]
LATENT = [
    *("+experiment=quickstart32", "+debug=tiny", "alignment=none", "perceptual=none", "model/codec=vae"),
    *("data.source=null", "data.url=shards", "data.num_workers=0", "trainer.val_check_interval=2", "prompts=[red]"),
    *("callbacks.progress=null", "callbacks.loss_plot=null", "callbacks.samples.every_n_steps=0"),
]


def trained(run_here: Any, *overrides: str) -> str:
    status, said, complaints = run_here("train", *overrides)
    assert status == 0, said + complaints
    return said


@pytest.mark.slow
def test_an_autoencoder_a_model_on_its_latents_and_both_resumed(painter_shards, run_here, tmp_path):
    data = ["data.source=null", f"data.path={painter_shards}"]
    trained(run_here, *AUTOENCODER, *data, "trainer.max_steps=4", "run=whole")
    whole = tmp_path / "logs" / "autoencoder" / "whole"
    part = [f"ckpt_path={whole}/checkpoints/step_00000002.ckpt", "trainer.max_steps=4", "run=part"]
    trained(run_here, *AUTOENCODER, *data, *part)
    ours, theirs = (read_checkpoint(find_checkpoint(whole.parent / run))["state_dict"] for run in ("whole", "part"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)
    assert (whole / "samples" / "step_00000004.png").is_file()
    assert "val/psnr" in (whole / "metrics.csv").read_text()
    net: Any = AutoencoderKL.from_pretrained(whole / "vae")  # the averaged weights
    averaged = read_checkpoint(find_checkpoint(whole))[KEY]["ema"]
    assert all(torch.equal(averaged[f"net.{name}"], value) for name, value in net.state_dict().items())
    status, _, complaints = run_here("sample", f"run={whole}", "prompts=red")
    assert status == 1
    assert "is an autoencoder, which paints nothing by itself" in complaints

    codec = [f"data.path={painter_shards}", f"model.codec.path={whole}", "run=latent"]
    trained(run_here, *LATENT, *codec, "trainer.max_steps=2")
    whole.rename(tmp_path / "elsewhere")
    trained(run_here, *LATENT, *codec, "trainer.max_steps=3", "ckpt_path=last")
    run = load_run(tmp_path / "logs" / "tiny" / "latent")
    assert run.step == 3
    assert run.model.latent_shape == (4, 8, 8)
    assert run("red", num_steps=1).isfinite().all()
    other = f"model.codec.path={toy_vae(tmp_path / 'other')}"
    status, _, complaints = run_here("train", *LATENT, *codec, other, "trainer.max_steps=4", "ckpt_path=last")
    assert status == 1
    assert "was trained on latents of the VAE of a folder" in complaints


# ---------------------------------------------------------------------- the autoencoder's step


def batch_of(count: int = 4) -> Batch:
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(images, [""] * count, [""] * count, list(range(count)), cursor=1)


def small() -> Autoencoder:
    return Autoencoder(image_size_px=8, block_channels=[4, 4], latent_channels=4, norm_groups=4)


def test_its_loss_is_the_pixels_and_the_pull_to_unit_noise():
    step = AutoencoderStep(small(), Reconstruction(kl_weight=0.5), terms=[Perceptual(tower=SmallTower(), layers=[])])
    drawn = step.drawn(batch_of(), global_batch_size=4)
    assert torch.equal(drawn.eps, noise_at([0, 1, 2, 3], (4, 4, 4), seed=0, stream=POSTERIOR))
    mean, logvar = step.model.encode(drawn.images)
    spread = torch.distributions.Normal(mean, (logvar / 2).exp())
    kl = torch.distributions.kl_divergence(spread, torch.distributions.Normal(0.0, 1.0)).mean((1, 2, 3))
    decoded = step.model.decode(mean + spread.stddev * drawn.eps)
    losses = step(drawn, step=0)
    torch.testing.assert_close(losses.per_picture, (decoded - drawn.images).abs().mean((1, 2, 3)) + 0.5 * kl)
    assert set(losses.terms) == {"perceptual"}
    assert not step(step.validated(batch_of())).terms


class Weighing(Term):
    """One that has weights of its own."""

    name = "weighing"

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.ones(3))

    def saved(self) -> dict[str, Any]:
        return dict(self.state_dict())

    def resume(self, state: Mapping[str, Any]) -> None:
        self.load_state_dict(state)


def test_a_term_of_its_loss_goes_on_from_its_own_state():
    before, after = Weighing(), Weighing()
    torch.nn.init.constant_(before.weights, 2.0)
    saved = AutoencoderStep(small(), Reconstruction(), terms=[before]).saved()
    AutoencoderStep(small(), Reconstruction(), terms=[after]).resume(saved)
    assert torch.equal(after.weights, before.weights)
    with pytest.raises(UserError, match="with the term weighing"):
        AutoencoderStep(small(), Reconstruction()).resume(saved)


def test_it_learns_its_pictures():
    torch.manual_seed(0)
    step = AutoencoderStep(small(), Reconstruction())
    optimizer, drawn, losses = torch.optim.Adam(step.parameters(), lr=1e-2), step.validated(batch_of(2)), []
    for _ in range(40):
        loss = step(drawn, step=0).total()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_latents_of_its_folder_have_mean_0_and_variance_1(tmp_path):
    model, images = small(), batch_of().images
    model.normalise(images)
    model.net.save_pretrained(tmp_path)
    latents = Vae(path=str(tmp_path)).encode(images)
    assert float(latents.mean()) == pytest.approx(0, abs=1e-5)
    assert float(latents.std()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["alignment=features"], "an autoencoder has no maps for alignment: train it with alignment=none."),
        (["compile=true"], "compile="),
        (["init_from=somewhere"], "this run trains an autoencoder: drop it."),
        (["model.block_channels=[6,6]"], "model.block_channels has 6, which is no multiple of norm_groups=4"),
        (["data.image_size_px=17"], "pictures of 17 px are no multiple of 2"),
    ],
)
def test_what_an_autoencoder_has_no_use_for(overrides, says, painter_shards, run_here):
    data = ["data.source=null", f"data.path={painter_shards}", "trainer.max_steps=1"]
    status, said, complaints = run_here("train", *AUTOENCODER, *data, *overrides)
    assert status == 1, said
    assert says in complaints
