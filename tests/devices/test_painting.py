"""Painting, serving and measuring on a GPU: on one that computes nothing, so only where things lie can go wrong."""

from __future__ import annotations

import threading
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from diffusion_art.config import config_dir
from diffusion_art.diffusion.samplers import SAMPLERS, by_name
from diffusion_art.diffusion.samplers.ddim import DDIM
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.errors import UserError
from diffusion_art.evaluate import evaluate
from diffusion_art.evaluation.distances import frechet_distance, kernel_distance
from diffusion_art.evaluation.features import FEATURES, load_features
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.sample import sample
from diffusion_art.schedule_search import schedule_search
from diffusion_art.serving.engine.engine import Engine
from diffusion_art.serving.engine.jobs import Job
from tests.fakes import JIT_CONFIG, MODEL_CONFIG, SAMPLER_CONFIG, toy_model, toy_run, write_checkpoint

GUIDANCE: list[dict[str, Any]] = [
    {"guidance_scale": 1.0},
    {"guidance_scale": 0.0},
    {"guidance_scale": 3.0},
    {"guidance_scale": 3.0, "negative_prompts": ["grey", ""]},
    {"guidance_scale": 3.0, "interval": (0.2, 0.8)},
    {"guidance_scale": 3.0, "rescale": 0.7},
    {"guidance_scale": 3.0, "threshold": 0.9},
]


@pytest.fixture(scope="module")
def clip(runs) -> dict[str, Any]:
    """The frozen tower, as a part of a model's config."""
    return {
        "_target_": "diffusion_art.models.text_encoder.OpenClipPretrained",
        "model": runs.clip(),
        "pretrained": None,
    }


def paint(model: TextToImage, **how: Any) -> torch.Tensor:
    return model.generate(["red", "a longer caption of blue"], seeds=[1, 2], **how)


ROUNDS = max(len(SAMPLERS), len(GUIDANCE))
PAIRS = list(islice(zip(cycle(SAMPLERS), cycle(GUIDANCE), strict=False), ROUNDS))


@pytest.mark.parametrize(("name", "guidance"), PAIRS, ids=str)
def test_every_sampler_and_every_guidance_paints(name, guidance, gpu):
    images = paint(toy_model().to("cuda"), sampler=by_name(name, num_steps=2), **guidance)
    assert images.shape == (2, 3, 16, 16)
    assert images.device.type == "cpu"


@pytest.mark.parametrize("encoder", ["scratch", "pretrained"])
@pytest.mark.parametrize("schedule", ["Flow", "CosineSchedule", "SquaredCosCapV2"])
def test_every_kind_of_schedule_and_encoder_paints(encoder, schedule, clip, gpu):
    changes = {"text_encoder": clip} if encoder == "pretrained" else {}
    of_schedule = {"_target_": f"diffusion_art.diffusion.schedules.{schedule}"}
    model = toy_model(schedule=of_schedule, backbone=JIT_CONFIG, **changes).to("cuda")
    cond = model.encode_captions(["red", "a longer caption of blue"])
    assert {part.device.type for part in (cond.tokens, cond.mask, cond.pooled)} == {"cuda"}
    sampler = DDIM(num_steps=2, eta=0.5, spacing="karras")
    assert paint(model, sampler=sampler, guidance_scale=2.0).shape == (2, 3, 16, 16)


def test_a_worse_model_leads_from_the_same_device_only(gpu):
    model, sampler = toy_model().to("cuda"), Euler(num_steps=1)
    assert len(paint(model, sampler=sampler, guidance_scale=2.0, guide=toy_model(seed=1).to("cuda"))) == 2
    with pytest.raises(UserError, match="the guide is on cpu and this model on cuda:0"):
        paint(model, sampler=sampler, guidance_scale=2.0, guide=toy_model(seed=1))


def of_job(guidance: dict[str, Any]) -> dict[str, Any]:
    negatives = guidance.get("negative_prompts")
    others = {key: value for key, value in guidance.items() if key != "negative_prompts"}
    return others | ({"negative_prompt": negatives[0]} if negatives else {})


def painter_run(folder: Path) -> Path:
    """A run on the painter's pictures."""
    source = {"_target_": "diffusion_art.sources.painter.Painter", "count": 8, "image_size_px": 16}
    config = {"model": MODEL_CONFIG, "sampler": SAMPLER_CONFIG, "guidance_scale": 2.0, "data": {"source": source}}
    write_checkpoint(folder / "checkpoints" / "step_00000005.ckpt", toy_model(), config=config)
    return folder


def command(name: str, *overrides: str) -> Any:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose(name, ["device=cuda", *overrides])


def test_the_commands_run_there(tmp_path, gpu):
    """sample, schedule_search and evaluate, with all that it measures."""
    run = toy_run(tmp_path / "run")
    out = sample(command("sample", f"run={run}", "prompts=[red,blue]", "num_steps=1"))
    assert len(list(out.glob("*.png"))) == 3
    few = ["num_steps=1", "fine_steps=2", "pictures=1", "sampler=dpmpp_2m", "guidance_scale=1"]
    assert len(schedule_search(command("schedule_search", f"run={run}", *few))["times"]) == 2
    few = ["count=3", "held_out_count=2", "batch_size=3", "num_steps=1", "pictures=4", "val_pictures=3"]
    trained = painter_run(tmp_path / "trained")
    measured = evaluate(command("evaluate", f"run={trained}", "metrics=[caption_following,kid,val_x0]", *few))
    assert measured["caption_following"]["style_count"] == 3
    assert {"kid", "val_x0"} <= measured.keys()


@pytest.mark.parametrize("name", [name for name in FEATURES if name != "inception"])
def test_features_are_seen_there_and_compared_here(name, gpu):
    network = load_features(name, device="cuda")
    seen = network(torch.zeros(3, 3, 16, 16))
    assert (seen.shape, seen.dtype, seen.device.type) == ((3, network.dim), torch.float64, "cpu")
    assert kernel_distance(seen, network(torch.ones(3, 3, 16, 16, device="cuda")), subset_size=3)[0] == 0
    alike = torch.zeros(1000, 8, dtype=torch.float64)
    assert frechet_distance(alike, alike) == 0


def test_the_engine_paints_jobs_that_have_nothing_in_common(clip, gpu, monkeypatch):
    ours = threading.Thread.run

    def on_the_gpu(thread: threading.Thread) -> None:
        with gpu.here():
            ours(thread)

    monkeypatch.setattr(threading.Thread, "run", on_the_gpu)
    engine = Engine(toy_model(text_encoder=clip).to("cuda"), max_rows=16)
    assert engine.precision == torch.bfloat16
    shown: list[np.ndarray] = []
    jobs = [
        Job(f"picture {place}", seed=place, sampler=by_name(name, num_steps=2 + place % 2), previews=1, **how)
        for place, (name, how) in enumerate(zip(SAMPLERS, map(of_job, GUIDANCE), strict=False))
    ]
    tickets = engine.submit(jobs, on_preview=lambda job, number, pixels: shown.append(pixels))
    engine.start()
    try:
        pictures = [ticket.result.result(120) for ticket in tickets]
    finally:
        engine.stop()
    assert engine.stats().failed == 0
    assert {picture.shape for picture in (*pictures, *shown)} == {(16, 16, 3)}
