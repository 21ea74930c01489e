"""The `openai` package of npm, unchanged, against our server: what LibreChat and its like are made with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from diffusion_art.serving.settings import Settings
from tests.serving.running import serving

VERSION = "7.59.0"
TOKEN = "a-token-of-some-length"
SCRIPT = Path(__file__).with_name("openai_npm.mjs")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def package() -> Path:
    """A folder where `openai` of npm is installed; kept for the next time."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("there is no node and npm here")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion-art-tests" / f"npm-{VERSION}"
    if not (folder / "node_modules" / "openai" / "package.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            "npm",
            "install",
            "--no-audit",
            "--no-fund",
            "--silent",
            "--prefix",
            str(folder),
            f"openai@{VERSION}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"npm cannot install openai {VERSION} here: {done.stderr.strip()[-200:]}")
    return folder


def test_the_npm_client(package, toy_folder):
    script = shutil.copy(SCRIPT, package / SCRIPT.name)  # beside node_modules, where node looks for packages
    with serving(toy_folder, settings=Settings(tokens=(TOKEN,))) as running:
        environment = {**os.environ, "OPENAI_BASE_URL": f"{running.url}/v1", "OPENAI_API_KEY": TOKEN, "NO_PROXY": "*"}
        done = subprocess.run(["node", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["models"] == ["toy"]
    assert told["librechat"] == {"size": "1024x1024", "painted": "16x16", "bytes": [1024, 1024], "base64": False}
    assert told["openwebui"] == {"size": "512x512", "painted": "16x16", "bytes": [512, 512], "base64": True}
    assert told["gpt"] == {"size": "1536x1024", "painted": "16x16", "bytes": [1536, 1024], "base64": True}
    assert told["events"] == [
        *("image_generation.partial_image", "image_generation.partial_image", "image_generation.completed"),
    ]
    assert told["edit"] == told["variation"] == [501, "not_implemented"]
    assert told["refused"] == [400, "invalid_size", "size"]
    assert told["token"] == [401, "invalid_api_key"]
