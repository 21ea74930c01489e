"""A run with the transformer from end to end: trained, painted with, served."""

from __future__ import annotations

import base64
import io

import httpx2
import numpy as np
import pytest
from PIL import Image

from diffusion_art.checkpoints import find_checkpoint, read_checkpoint
from diffusion_art.models.jit import JiT
from diffusion_art.record import KEY
from diffusion_art.runs import load_run
from diffusion_art.tensors import to_uint8
from tests.serving.running import serving

TINY = ["+experiment=quickstart32", "+debug=tiny", "data.source=null", "data.num_workers=0", "callbacks.progress=null"]
TINY += ["callbacks.samples=null", "callbacks.loss_plot=null", "data.val_samples=8", "trainer.max_steps=6"]


@pytest.mark.slow
def test_a_transformer_is_trained_and_what_it_paints_is_the_same_by_every_door(painter_shards, run_here, tmp_path):
    words = ["model/backbone=jit_tiny", f"data.path={painter_shards}", "run=jit"]
    status, said, complaints = run_here("train", *TINY, *words)
    assert status == 0, said + complaints
    folder = tmp_path / "logs/tiny/jit"
    run = load_run(folder)
    assert isinstance(run.model.backbone, JiT)
    assert run.step == 6
    saved = read_checkpoint(find_checkpoint(folder))
    assert any(value.any() for name, value in saved[KEY]["ema"].items() if "to_patches" in name)  # zero at the start

    prompts, settings = ["red", "a longer prompt about blue"], {"seed": 3, "guidance_scale": 3.0}
    own = to_uint8(run.sample(prompts, **settings)).astype(int)
    status, said, complaints = run_here(
        *("sample", f"run={folder}", f"prompts=[{','.join(prompts)}]", f"out={tmp_path / 'out'}"),
        *(f"{name}={value}" for name, value in settings.items()),
    )
    assert status == 0, said + complaints
    painted = sorted((tmp_path / "out").glob("0*.png"))
    assert len(painted) == 2
    with serving(folder) as server, httpx2.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        for row, prompt in enumerate(prompts):
            body = {"prompt": prompt, **settings, "seed": settings["seed"] + row}
            answer = client.post("/v1/images/generations", json=body)
            assert answer.status_code == 200, answer.text
            for content in (painted[row], io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))):
                with Image.open(content) as picture:
                    assert np.abs(np.asarray(picture) - own[row]).max() <= 1
