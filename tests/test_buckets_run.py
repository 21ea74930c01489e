"""A run on buckets by the real commands: trained, stopped, gone on with, and painted from."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion_art.runs import load_run
from tests.fakes import toy_vae
from tests.fakes_buckets import bucketed_shards

T = (
    "+experiment=quickstart32",
    "+debug=tiny",
    "data.path=shards",
    "data.source=null",
    "data.url=shards",
    "data.num_workers=0",
    "callbacks.progress=null",
    "+model.backbone.size_conditioning=true",
    "trainer.accelerator=cpu",
)


@pytest.mark.slow
def test_latents_of_buckets_train_as_they_would_on_the_way(tmp_path: Path, run_here):
    bucketed_shards(tmp_path / "shards")
    vae = (
        "model/codec=vae",
        f"model.codec.path={toy_vae(tmp_path / 'vae')}",
        "alignment=none",
        "trainer.precision=fp32",
    )
    assert run_here("precompute", "data.path=shards", "what=[latents]", *vae[:2])[0] == 0
    losses = []
    for run in ("late", "early"):
        payload = "jpeg" if run == "late" else "latents"
        status, said, complaints = run_here("train", *T, *vae, f"run={run}", f"data.payload={payload}")
        assert status == 0, said + complaints
        rows = csv.DictReader((tmp_path / "logs" / "tiny" / run / "metrics.csv").read_text().splitlines())
        losses.append([float(row["train/loss"]) for row in rows if row.get("train/loss")])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert len(losses[0]) > 3


@pytest.mark.slow
def test_a_run_on_buckets_is_resumed_to_the_bit_and_paints_their_sizes(tmp_path: Path, run_here):
    bucketed_shards(tmp_path / "shards")
    assert run_here("train", *T, "run=whole", "trainer.max_steps=8")[0] == 0
    assert run_here("train", *T, "run=parts", "trainer.max_steps=8")[0] == 0
    stopped = tmp_path / "logs" / "tiny" / "parts" / "checkpoints" / "step_00000006.ckpt"
    status, said, complaints = run_here("train", *T, "run=later", f"ckpt_path={stopped}", "trainer.max_steps=8")
    assert status == 0, said + complaints
    whole, later = (load_run(tmp_path / "logs" / "tiny" / name, weights="raw") for name in ("whole", "later"))
    ours, theirs = whole.model.trainable_state(), later.model.trainable_state()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (12, 16) in whole.model.sizes

    status, *_ = run_here("sample", "run=logs/tiny/whole", "prompts=[red]", "size=12x16", "num_steps=1", "out=painted")
    assert status == 0
    with Image.open(next((tmp_path / "painted").glob("000_*.png"))) as painted:
        assert painted.size == (12, 16)
    status, _, complaints = run_here("sample", "run=logs/tiny/whole", "prompts=[red]", "size=13x16")
    assert status == 1
    assert "does not paint 13x16: it was trained on 12x16, 16x16, 16x12, 20x12, 24x8" in complaints

    status, _, complaints = run_here("train", *T, "run=other", "model/codec=unshuffle4", "trainer.max_steps=2")
    assert status == 1
    assert "bucket_step_px=8" in complaints
