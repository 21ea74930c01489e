"""What docs/extending.md adds is added by its diff and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.errors import UserError
from diffusion_art.shards.reader import ShardSet
from tests.conftest import ROOT
from tests.fakes import toy_run

NEW_SAMPLER = """
import base64, io, json, sys
from pathlib import Path

import httpx2
from hydra import compose, initialize_config_dir
from PIL import Image

from diffusion_art.config import config_dir
from diffusion_art.diffusion.samplers import by_name
from diffusion_art.runs import load_run
from diffusion_art.sample import sample
from tests.serving.running import serving

run = Path(sys.argv[1])


def told(picture):
    return {"file": sys.modules["diffusion_art"].__file__, **picture.info}


with initialize_config_dir(str(config_dir()), version_base="1.3"):
    out = sample(compose("sample", ["device=cpu", f"run={run}", "prompts=[red]", "sampler=ab2", "num_steps=3"]))
found = [told(Image.open(out / "000_red.png"))]
with serving(run) as server, httpx2.Client(base_url=server.url, trust_env=False, timeout=60) as client:
    for url, asked in (
        ("/v1/images/generations", {"sampler": "ab2", "num_inference_steps": 3}),
        ("/sdapi/v1/txt2img", {"sampler_name": "LMS", "steps": 3}),
    ):
        answer = client.post(url, json={"prompt": "red", "seed": 0, **asked}).json()
        content = answer["data"][0]["b64_json"] if "data" in answer else answer["images"][0]
        found.append(told(Image.open(io.BytesIO(base64.b64decode(content)))))
print(json.dumps(found))
"""


NEW_OTHERS = """
import json, sys
from pathlib import Path

import httpx2
import numpy as np
import torch
from hydra import compose, initialize_config_dir

from diffusion_art.checkpoints import load_text_to_image
from diffusion_art.config import config_dir
from diffusion_art.shards.mixture import open_shards
from diffusion_art.prepare import main as prepare
from diffusion_art.tensors import Batch
from diffusion_art.launching.settle import settle
from diffusion_art.training.build import build_step
from tests.fakes import write_checkpoint
from tests.serving.running import serving

here = Path(sys.argv[1])
run = here / "toy"
pictures = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
np.savez(here / "arrays.npz", images=pictures, captions=[f"picture {n}" for n in range(12)])
with initialize_config_dir(str(config_dir()), version_base="1.3"):
    asked = ["source=npz", f"source.path={here / 'arrays.npz'}", f"out={here / 'shards'}", "image_size_px=32"]
    prepare.task(compose("prepare", overrides=[*asked, "workers=1", "progress=false"]))
    asked = ["alignment=features", "trainer.max_steps=10", "model/text_encoder=hashed_words", "+edges=l1"]
    settings = settle(compose("train", overrides=[*asked, "data.path=nowhere", "prompts=[red]"]), run)
shards = open_shards(here / "shards")

step = build_step(settings).train()
images = torch.from_numpy(pictures[:4]).permute(0, 3, 1, 2) / 127.5 - 1
batch = Batch(images, ["red", "", "a blue house", "word " * 40], list("abcd"), [0, 1, 2, 3], 1)
losses = step(step.drawn(batch, global_batch_size=4), step=0)
losses.total().backward()
step.model.encode_captions(["word " * 40])  # which the draw may have withheld
with torch.no_grad():
    for p in step.model.parameters():
        p.normal_(std=0.1)
written = write_checkpoint(here / "hashed.ckpt", step.model, config=settings)
again = load_text_to_image(written, weights="raw")
same = all(torch.equal(one, other) for one, other in zip(again.parameters(), step.model.parameters(), strict=True))
with serving(run) as server, httpx2.Client(base_url=server.url, trust_env=False, timeout=60) as client:
    words = client.get("/v1/samplers").json()
    described = "/v1/samplers" in client.get("/openapi.json").json()["paths"]
print(json.dumps({
    "splits": dict(shards.splits), "terms": sorted(losses.terms), "finite": bool(losses.total().isfinite()),
    "learns": bool(step.model.text_encoder.word_embedding.weight.grad.any()), "cut": again.text_encoder.truncated,
    "cut before": step.model.text_encoder.truncated, "same": same, "words": words, "described": described,
    "on latents": [name for name, term in step.terms.items() if not term.sees_pixels],
}))
"""


@pytest.fixture
def extended(tmp_path) -> Path:
    """A copy of the package and its configs with the diffs of the page applied."""
    house = tmp_path / "house"
    for part in ("diffusion_art", "conf"):
        shutil.copytree(ROOT / part, house / part, ignore=shutil.ignore_patterns("__pycache__"))
    for diff in re.findall(r"```diff\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL):
        subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=house, check=True)
    return house


def told(program: str, argument: Path, *, house: Path) -> Any:
    """What a program prints last, run in a house."""
    environment = os.environ | {"PYTHONPATH": f"{house}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", program, str(argument)]
    done = subprocess.run(command, cwd=argument.parent, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_new_encoder_source_term_and_endpoint_are_found(extended, tmp_path):
    toy_run(tmp_path / "toy")
    found = told(NEW_OTHERS, tmp_path, house=extended)
    assert sum(found["splits"].values()) == 12
    assert found["terms"] == ["alignment", "edges"]
    assert not found["on latents"]  # both are refused where a batch has no pictures
    assert (found["finite"], found["learns"], found["same"]) == (True, True, True)
    assert (found["cut before"], found["cut"]) == (1, 0)
    assert found["words"]["ddim"] == ["num_steps", "spacing", "times", "eta"]
    assert found["described"]


@pytest.mark.slow
def test_a_new_sampler_paints_by_every_door(extended, tmp_path):
    """By `sample`, over HTTP by its word, and by its name in AUTOMATIC1111's web UI."""
    pictures = told(NEW_SAMPLER, toy_run(tmp_path / "logs" / "toy"), house=extended)
    assert len(pictures) == 3
    for story in pictures:
        assert Path(story["file"]).is_relative_to(extended)
        assert json.loads(story["sampler"]) == {"name": "ab2", "num_steps": 3, "spacing": "uniform"}
        assert "Steps: 3, Sampler: LMS, " in story["parameters"]


def _of_own_package(language: str) -> str:
    section = (ROOT / "docs" / "extending.md").read_text().partition("## In a package of your own")[2]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)[0]


@pytest.mark.slow
def test_a_network_of_ones_own_package_trains_compiled_and_paints(run_here, painter_shards, monkeypatch, tmp_path):
    (tmp_path / "my_parts.py").write_text(_of_own_package("python"))
    (tmp_path / "my_conf/model/backbone").mkdir(parents=True)
    (tmp_path / "my_conf/model/backbone/shallow.yaml").write_text(_of_own_package("yaml"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DIFFUSION_ART_PARTS", "my_parts")
    words = ["--config-dir", "my_conf", "+experiment=quickstart32", f"data.path={painter_shards}", "data.source=null"]
    words += ["data.url=shards", "data.num_workers=0", "data.image_size_px=16", "data.global_batch_size=8", "run=own"]
    words += [
        "model/backbone=shallow",
        "alignment=none",
        "compile=true",
        "trainer.max_steps=2",
        "callbacks.samples=null",
    ]
    status, said, complaints = run_here("train", *words, "callbacks.caption_following=null", "name=tiny")
    assert status == 0, said + complaints
    sample = ["sample", "run=logs/tiny/own", "prompts=[red]", "sampler=ddim", "num_steps=2"]
    assert run_here(*sample, "out=painted")[0] == 0
    assert (tmp_path / "painted/grid.png").exists()
    monkeypatch.delenv("DIFFUSION_ART_PARTS")
    status, _, complaints = run_here(*sample)
    assert status == 1
    assert "If you trust `my_parts`" in complaints


def test_a_loop_of_ones_own_learns(painter_shards, tmp_path, monkeypatch):
    section = (ROOT / "docs" / "extending.md").read_text().partition("## In a loop of your own")[2]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    toy_run(tmp_path / "logs/quickstart")
    code = code.replace("data/painter-64px", str(painter_shards)).replace("image_size_px=64", "image_size_px=16")
    monkeypatch.chdir(tmp_path)
    seen: dict[str, Any] = {}
    exec(code, seen)
    assert 0 < float(seen["loss"].detach()) < 10


TWO_PROCESSES = """
import os, sys
from pathlib import Path

from torch import distributed

from diffusion_art.data.datamodule import StreamDataModule

shards, out = sys.argv[1:]
distributed.init_process_group("gloo")
data = StreamDataModule(shards=shards, url="shards", image_size_px=16, global_batch_size=8, num_workers=0)
data.setup("fit")
keys = [key for batch in data.train_dataloader() for key in batch.keys]
Path(out, os.environ["RANK"]).write_text("\\n".join(keys))
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_a_loop_of_ones_own_in_two_processes_reads_each_picture_in_one_of_them(painter_shards, tmp_path):
    script = tmp_path / "loop.py"
    script.write_text(TWO_PROCESSES)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), str(painter_shards)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = ((tmp_path / rank).read_text().split() for rank in "01")
    shards = ShardSet.open(painter_shards)
    read = 8 * -(-shards.splits["train"] // 8)  # whole batches: the last one has some of the next epoch
    assert len(first) == len(second) == read // 2
    assert {*first, *second} == {shards.key("train", i) for i in range(shards.splits["train"])}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # of Lightning
def test_a_trainer_of_ones_own_is_told_how_long_an_epoch_is(painter_shards):
    data = StreamDataModule(
        shards=painter_shards, url="shards", image_size_px=16, global_batch_size=8, num_workers=0, val_samples=8
    )
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, limit_val_batches=0)
    with pytest.raises(UserError, match=r"no max_steps, and this data needs it: one epoch is max_steps=\d+\.$"):
        trainer.fit(BoringModel(), datamodule=data)
