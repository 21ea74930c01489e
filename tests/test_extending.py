"""What docs/extending.md adds is added by its diff and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fakes import toy_run

NEW_SAMPLER = """
import base64, io, json, sys
from pathlib import Path

import httpx2
from hydra import compose, initialize_config_dir
from PIL import Image

from diffusion_art.cli import config_dir
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


@pytest.fixture
def extended(tmp_path) -> Path:
    """A copy of the package and its configs with the diffs of the page applied."""
    house = tmp_path / "house"
    for part in ("diffusion_art", "conf"):
        shutil.copytree(ROOT / part, house / part, ignore=shutil.ignore_patterns("__pycache__"))
    for diff in re.findall(r"```diff\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL):
        subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=house, check=True)
    return house


@pytest.mark.slow
def test_a_new_sampler_paints_by_every_door(extended, tmp_path):
    """By `sample`, over HTTP by its word, and by its name in AUTOMATIC1111's web UI."""
    run = toy_run(tmp_path / "logs" / "toy")
    environment = os.environ | {"PYTHONPATH": f"{extended}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", NEW_SAMPLER, str(run)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pictures = json.loads(done.stdout.splitlines()[-1])
    assert len(pictures) == 3
    for told in pictures:
        assert Path(told["file"]).is_relative_to(extended)
        assert json.loads(told["sampler"]) == {"name": "ab2", "num_steps": 3, "spacing": "uniform"}
        assert "Steps: 3, Sampler: LMS, " in told["parameters"]
