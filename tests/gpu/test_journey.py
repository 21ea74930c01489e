"""`wikiart` from its first step to a served picture, by the real commands, on a narrow network and small pictures."""

from __future__ import annotations

import json

import httpx2
import pandas as pd
import pytest
import torch

from diffusion_art.runs import load_run
from diffusion_art.shards.build.build import build_shards
from diffusion_art.sources.painter import Painter
from tests.fakes import tiny_clip
from tests.serving.running import serving

STEPS, MORE = 20, 25
LOSS_DIFFERENCE = 0.05  # of the last five steps' mean losses: training in bf16 against float32
ACCELERATOR = {"cuda": "gpu", "cpu": "cpu"}


@pytest.fixture
def wikiart(tmp_path, device) -> list[str]:
    """The command, short of run=NAME: a network of 4 levels and CLIP's text tower, from a file of random weights."""
    shards = tmp_path / "shards"
    painter = Painter(count=200, image_size_px=32)
    build_shards(painter, shards, image_size_px=32, val_fraction=0.1, progress=False, workers=1)
    narrow = "{block_channels: [16, 32, 32, 32], layers_per_block: 1, head_channels: 16, norm_groups: 8}"
    return [
        *("+experiment=wikiart", "compile=false", f"trainer.accelerator={ACCELERATOR[device]}"),
        *("data.source=null", f"data.path={shards}", "data.image_size_px=32", "data.num_workers=1"),
        *("data.global_batch_size=8", "data.val_samples=16", "trainer.accumulate_grad_batches=1"),
        *(f"model.backbone={narrow}", f"model.text_encoder.model=local-dir:{tiny_clip(tmp_path / 'clip')}"),
        *("model.text_encoder.pretrained=null", "optim.lr=1e-3", "lr_schedule.warmup_steps=2", "sampler.num_steps=4"),
        *("trainer.val_check_interval=10", "trainer.log_every_n_steps=1", "callbacks.checkpoints.every_n_steps=10"),
        *("callbacks.samples.at_steps=[]", "callbacks.progress=null"),
    ]


def test_train_resume_sample_evaluate_export_and_serve(wikiart, device, run_command, tmp_path):
    def run(name: str, *arguments: str) -> None:
        done = run_command(name, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr

    run("train", *wikiart, f"trainer.max_steps={STEPS}", "run=first")
    run("train", *wikiart, f"trainer.max_steps={MORE}", "run=first", "ckpt_path=last")
    folder = tmp_path / "logs" / "wikiart" / "first"
    losses = pd.read_csv(folder / "metrics.csv")["train/loss"].dropna()
    assert len(losses) == MORE
    assert losses[-5:].mean() < losses[:5].mean()

    where = f"device={device}"
    run("sample", f"run={folder}", where, "prompts=[a red house,blue]", f"out={tmp_path / 'painted'}")
    assert len(list((tmp_path / "painted").glob("*.png"))) == 3
    few = ["pictures=16", "val_pictures=8", "batch_size=16", "count=4", "held_out_count=4"]
    run("evaluate", f"run={folder}", where, "metrics=[caption_following,kid,val_x0]", *few)
    measured = json.loads((folder / "evaluation.json").read_text())
    assert all(torch.tensor(measured[name][name]).isfinite() for name in ("kid", "val_x0"))
    exported = tmp_path / "model.safetensors"
    run("export", f"run={folder}", f"path={exported}")

    with serving(load_run(exported, device=device), precision="auto") as server:
        answer = httpx2.post(f"{server.url}/v1/images/generations", json={"prompt": "red", "seed": 1}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == "32x32"


def test_a_run_in_bf16_learns_as_one_in_float32(wikiart, run_command, tmp_path):
    """Stated for the mean loss of the last five steps of twenty, from the same start and on the same pictures."""
    last: dict[str, float] = {}
    for precision in ("32-true", "bf16-mixed"):
        arguments = [f"trainer.precision={precision}", f"trainer.max_steps={STEPS}", f"run={precision}"]
        done = run_command("train", *wikiart, *arguments, "callbacks.samples=null", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        metrics = pd.read_csv(tmp_path / "logs" / "wikiart" / precision / "metrics.csv")
        last[precision] = metrics["train/loss"].dropna()[-5:].mean()
    assert last["bf16-mixed"] == pytest.approx(last["32-true"], rel=LOSS_DIFFERENCE)
