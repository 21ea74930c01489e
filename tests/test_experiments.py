"""Every experiment composes, settles and builds; a new yaml is tested by existing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffusion_art.config import allowed, build, config_dir, is_a, targets
from diffusion_art.errors import UserError
from diffusion_art.evaluation.data import RunData
from diffusion_art.experiments.edm import Edm
from diffusion_art.launching.settle import settle
from diffusion_art.models.autoencoder import Autoencoder
from diffusion_art.models.clip_to_train import TrainableClip
from diffusion_art.models.jit import JiT
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.models.unet import UNet
from diffusion_art.runs import load_run
from diffusion_art.shards.build.build import build_shards
from diffusion_art.sources.folder.folder import ImageFolder
from diffusion_art.sources.painter import Painter
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.tensors import Batch
from diffusion_art.training.build import build_step, build_trainer
from tests.fakes import tiny_clip, toy_run
from tests.fakes_sources import captioned

PAINTER = {"_target_": "diffusion_art.sources.painter.Painter", "count": 20, "image_size_px": 16}


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def _settled(tmp_path: Path, *overrides: str) -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=["data.path=somewhere", *overrides])
    return settle(config, tmp_path)


@pytest.mark.parametrize("name", _choices("experiment"))
def test_every_experiment_builds(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    wanted = {"distill": [f"teacher.run={toy_run(tmp_path / 'teacher')}", "data.image_size_px=16"]}  # to be complete
    settings = _settled(tmp_path, f"+experiment={name}", "prompts=[a boat]", *wanted.get(name, []))
    assert settings["name"] == name
    with torch.device("meta"):
        model = build(settings["model"])
        optimizer = build(settings["optim"])([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(model, {"autoencoder": Autoencoder, "clip": TrainableClip}.get(name, TextToImage))
    assert model.image_size_px == settings["data"]["image_size_px"]
    assert optimizer.defaults["lr"] == settings["optim"]["lr"]
    build(settings["objective"])
    build(settings["lr_schedule"])
    trainer = build_trainer(settings)
    assert trainer.max_steps == settings["trainer"]["max_steps"]
    assert not (tmp_path / "somewhere").exists()  # nothing was painted or read for it


def test_a_run_on_pictures_of_ones_own_has_no_painter(painter_shards: Path, tmp_path: Path, caplog):
    """Its captions would be asked, and its pictures compared with, though training saw none of them."""
    caplog.set_level("INFO")
    captioned(tmp_path / "mine", 12)
    small = ("+experiment=quickstart", "data.image_size_px=16", f"paths.data_dir={tmp_path / 'data'}")
    settings = _settled(tmp_path, *small, f"data.path={tmp_path / 'mine'}")
    assert settings["data"]["source"] is None
    assert all(prompt.startswith("swatch") for prompt in settings["prompts"])
    assert f"data.path={tmp_path / 'mine'} holds pictures of its own, so none are painted" in caplog.text
    assert RunData(settings).painter is None
    assert RunData(settings | {"data": settings["data"] | {"source": PAINTER}}).painter is None  # of an earlier version
    settings = _settled(tmp_path, *small, f"data.path={painter_shards}")
    assert is_a(settings["data"]["source"], Painter)
    assert isinstance(RunData(settings).painter, Painter)


@pytest.mark.slow
def test_a_run_on_what_a_server_has_of_ones_own_has_no_painter_either(painter_shards: Path, tmp_path: Path, caplog):
    caplog.set_level("INFO")
    captioned(tmp_path / "mine", 12)
    build_shards(ImageFolder(tmp_path / "mine"), tmp_path / "shards", image_size_px=16, workers=1)
    small = ("+experiment=quickstart", "data.image_size_px=16", f"paths.data_dir={tmp_path / 'data'}")
    with ServerProcess(tmp_path / "shards") as server:
        settings = _settled(tmp_path, *small, f"data.url={server.url}")
    assert settings["data"]["source"] is None
    assert all(prompt.startswith("swatch") for prompt in settings["prompts"])
    assert f"the server at data.url={server.url} has `mine`, and not the painter's pictures" in caplog.text
    with pytest.raises(UserError, match=r"read its pictures from a server: give real=FOLDER"):
        RunData(settings).real()
    with ServerProcess(painter_shards) as server:
        settings = _settled(tmp_path, *small, f"data.url={server.url}")
    assert isinstance(RunData(settings).painter, Painter)
    gone = _settled(tmp_path, *small, f"data.url={server.url}")  # training says so
    assert isinstance(RunData(gone).painter, Painter)


ABLATIONS = sorted(path.stem for path in (config_dir() / "experiment" / "ablation").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_composes_and_names_what_there_is(name):
    """Of 32 and 64 px on the painter's pictures, under a name of its own."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=[f"+experiment=ablation/{name}"])
    assert config.name == f"ablation/{name}"
    assert is_a(config.data.source, Painter)
    assert all(allowed(target) for target in targets(OmegaConf.to_container(config, resolve=False)))


def test_the_index_of_ablations_names_them_all():
    index = (config_dir().parent / "benchmarks" / "TRIED.md").read_text()
    assert [name for name in ABLATIONS if f"`{name}`" not in index] == []


def test_an_ablation_trains_by_its_name(run_here, tmp_path):
    small = ["data.source.count=40", "data.num_workers=0", "data.url=shards", "trainer.max_steps=2", "alignment=none"]
    status, said, complaints = run_here("train", "+experiment=ablation/edm", "+debug=tiny", *small, "run=first")
    assert status == 0, said + complaints
    run = load_run(tmp_path / "logs" / "tiny" / "first")
    assert run.step == 2
    assert is_a(run.config["model"]["prediction"], Edm)
    assert run("red", num_steps=1).isfinite().all()


GROUPS = ["optim", "lr_schedule", "ema", "trainer", "callbacks", "logger", "data", "noise", "objective", "sampler"]


@pytest.mark.parametrize("group", [*GROUPS, "curriculum", "alignment", "perceptual"])
def test_every_choice_of_a_group_composes_and_names_known_classes(group, tmp_path):
    for name in _choices(group):
        if name == "default" and group == "data":
            continue  # what the others build on
        settings = _settled(tmp_path, f"{group}={name}", "prompts=[a boat]")
        assert all(allowed(target) for target in targets(settings))


def test_the_baseline_has_the_tutorials_knobs(tmp_path):
    settings = _settled(tmp_path, "+experiment=wikiart_eir")
    assert settings["data"]["image_size_px"] == 128
    assert settings["data"]["global_batch_size"] == 128
    assert settings["trainer"]["accumulate_grad_batches"] == 1
    assert settings["data"]["val_samples"] == 1024
    assert settings["trainer"]["max_steps"] == 50_000
    assert settings["trainer"]["gradient_clip_val"] == 1.0
    assert settings["trainer"]["precision"] == "bf16-mixed"
    assert settings["optim"]["_target_"] == "torch.optim.AdamW"
    assert (settings["optim"]["lr"], settings["optim"]["weight_decay"]) == (1e-4, 1e-4)
    assert settings["lr_schedule"]["warmup_steps"] == 2000
    assert settings["lr_schedule"]["patience"] == 16
    assert settings["callbacks"]["early_stopping"]["patience"] == 32
    assert (
        settings["callbacks"]["samples"]["every_n_steps"]
        == settings["callbacks"]["checkpoints"]["every_n_steps"]
        == 1000
    )
    assert settings["sampler"] == {
        "_target_": "diffusion_art.diffusion.samplers.ddim.DDIM",
        "num_steps": 200,
        "spacing": "uniform",
        "times": None,
        "eta": 0.2,
    }
    assert settings["model"]["prediction"]["_target_"].endswith(".V")
    assert settings["model"]["schedule"]["_target_"].endswith(".SquaredCosCapV2")
    assert settings["model"]["schedule"]["zero_terminal_snr"] is True
    assert settings["model"]["schedule"]["num_train_timesteps"] == 1000
    assert settings["compile"] is True
    assert settings["caption_dropout"] == 0.0
    assert settings["ema"]["decay"] == 0.0
    assert settings["optim"]["betas"] == [0.9, 0.999]
    assert settings["alignment"] is None
    assert settings["perceptual"] is None
    assert settings["find_batch_size"] is False


def test_wikiart_trains_with_the_recipe_that_was_measured(tmp_path):
    settings = _settled(tmp_path, "+experiment=wikiart")
    quickstart = _settled(tmp_path, "+experiment=quickstart32")
    assert settings["optim"] == quickstart["optim"]
    assert settings["optim"]["_target_"] == "diffusion_art.training.muon.Muon"
    assert settings["alignment"] == quickstart["alignment"] | {"total_steps": settings["trainer"]["max_steps"]}
    pictures = settings["data"]["global_batch_size"] * settings["trainer"]["accumulate_grad_batches"]
    assert pictures == 128


def test_the_transformer_on_pictures_of_128_px_outputs_the_picture_and_is_judged_by_the_flow(tmp_path):
    small = ["model.backbone.width=64", "model.backbone.depth=2", "model.backbone.context_from=1"]
    text = ["model/text_encoder=open_clip_scratch", "model.text_encoder.width=32", "model.text_encoder.heads=2"]
    step = build_step(_settled(tmp_path, "+experiment=wikiart_x0", *small, *text)).train()
    assert step.model.latent_shape == (48, 32, 32)
    images = torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = Batch(images=images, captions=["red"] * 4, keys=[""] * 4, positions=[0, 1, 2, 3], cursor=1)
    example = step.drawn(batch, global_batch_size=4)
    losses = step(example, step=0)
    nothing = images.square().mean((1, 2, 3)) / example.t.clamp(min=0.05) ** 2  # what an untrained network answers
    torch.testing.assert_close(losses.per_picture, nothing)
    assert set(losses.terms) == {"alignment"}
    optimizer = torch.optim.Adam(step.parameters(), lr=1e-3)
    losses.total().backward()
    optimizer.step()
    assert step(example, step=1).per_picture.mean() < losses.per_picture.mean()


@pytest.mark.slow
def test_the_painter_at_128_px_ends_in_a_gallery_and_figures(run_here, tmp_path):
    """The real command on a network and pictures of a CPU's size."""
    small = [
        *("data.image_size_px=16", "data.global_batch_size=8", "data.val_samples=8", "data.source.count=100"),
        *("data.num_workers=0", "data.url=shards", "model.backbone.block_channels=[16,32]"),
        *("model.backbone.attention_sides=[4]", "model.backbone.head_channels=16", "model.backbone.norm_groups=8"),
        *("model.text_encoder.width=32", "model.text_encoder.heads=2", "sampler.num_steps=2"),
        *("trainer.max_steps=4", "trainer.val_check_interval=4", "callbacks.samples.at_steps=[2]"),
        *("+callbacks.caption_following.count=6", "+callbacks.caption_following.held_out_count=4"),
    ]
    status, said, complaints = run_here("train", "+experiment=painter128", *small, "run=small")
    assert status == 0, said + complaints
    for figure in ("style", "both colours", "held-out style and colours"):
        assert figure in said
    run = tmp_path / "logs" / "painter128" / "small"
    assert [path.stem for path in sorted(run.glob("samples/*.png"))] == [f"step_{step:08d}" for step in (0, 2, 4)]
    assert (run / "caption_following.json").is_file()


def test_the_painter_at_128_px_paints_as_many_prompts_as_the_quickstart(tmp_path):
    ours, quickstart = (_settled(tmp_path, f"+experiment={name}") for name in ("painter128", "quickstart32"))
    where = {"source": None, "sampler": None, "folder": None}
    assert ours["callbacks"]["caption_following"] | where == quickstart["callbacks"]["caption_following"] | where
    assert ours["prompts"] == quickstart["prompts"]
    assert ours["data"]["image_size_px"] == 128


def test_wikiart_without_its_data_names_three_ways_to_get_it(run_here, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status, said, complaints = run_here("train", "+experiment=wikiart", "+debug=tiny")
    assert status == 1
    assert "Traceback" not in said + complaints
    for way in ("source.path=", "source=wikiart", "data.url=ws://"):
        assert way in complaints
    assert complaints.count("error: ") == 1


def test_wikiart_without_pretrained_weights_says_so_and_trains_a_small_tower(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = _settled(tmp_path, "+experiment=wikiart", "model.text_encoder.pretrained=not-a-tag-that-exists")
    assert settings["model"]["text_encoder"]["_target_"].endswith("OpenClipScratch")
    assert "cannot be reached" in caplog.text


@pytest.mark.parametrize("kind", ["open_clip_pretrained", "pair"])
def test_debug_tiny_goes_with_any_text_encoder(kind, tmp_path):
    """The sizes that it gives are those of a tower that is trained along."""
    part = "model.text_encoder.encoders.first" if kind == "pair" else "model.text_encoder"
    words = [f"model/text_encoder={kind}", f"{part}.model=local-dir:{tiny_clip(tmp_path / 'clip')}"]
    words += [f"{part}.pretrained=null", "prompts=[a boat]"]
    words += ["model/text_encoder@model.text_encoder.encoders.second=open_clip_scratch"] if kind == "pair" else []
    settings = _settled(tmp_path, "+experiment=quickstart32", "+debug=tiny", *words)
    assert isinstance(build(settings["model"]), TextToImage)


@pytest.mark.parametrize(
    ("words", "backbone"),
    [
        (["model/backbone=jit_base"], JiT),
        (["data.image_size_px=128"], UNet),
        (["model/backbone=unet_base", "data.image_size_px=64", "model/codec=unshuffle4"], UNet),
    ],
)
def test_debug_tiny_shrinks_the_network_that_was_chosen_for_pictures_of_any_size(words, backbone, tmp_path):
    settings = _settled(tmp_path, "+experiment=quickstart32", "+debug=tiny", *words)
    model = build(settings["model"])
    assert isinstance(model.backbone, backbone)
    assert sum(p.numel() for p in model.backbone.parameters()) < 1e6


def test_debug_tiny_passes_no_key_over_that_was_typed(tmp_path):
    words = ["+experiment=quickstart32", "+debug=tiny", "data.path=somewhere", "model.backbone.width=64"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=words)
    settings = settle(config, tmp_path, typed=["model.backbone.width"])
    with pytest.raises(UserError, match="unexpected keyword argument 'width'"):
        build(settings["model"])


def test_the_trainer_counts_in_steps_and_logs_short_runs(tmp_path):
    asked = ["trainer.max_steps=5", "trainer.accelerator=cpu", "trainer.accumulate_grad_batches=4"]
    settings = _settled(tmp_path, "+experiment=wikiart", *asked)
    trainer = build_trainer(settings)
    assert trainer.val_check_interval == 4 * settings["trainer"]["val_check_interval"]  # four batches to a step
    assert trainer.log_every_n_steps == 1
