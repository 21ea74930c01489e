"""The package without extras: shards are built, looked at and streamed, and no torch is there."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes_sources import encoded, picture

ROOT = Path(__file__).parents[1]
READ = """
import sys
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
(samples,) = StreamClient(sys.argv[1]).read([ReadRequest("train", 0, 0, 8)])
print(sorted({sample.caption for sample in samples}), "torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.Popen[str]]:
    """`bare("-m", "diffusion_art.shards", ...)` starts the Python of a fresh environment with the bare package."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(ROOT)], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [str(python), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)

    return start


def run(started: subprocess.Popen[str]) -> tuple[int, str, str]:
    said, complaints = started.communicate(timeout=300)
    return started.returncode, said, complaints


@pytest.mark.slow
@pytest.mark.network
def test_the_bare_package_builds_looks_at_and_streams_shards_without_torch(bare, tmp_path: Path):
    pictures, shards = tmp_path / "pictures", tmp_path / "shards"
    for number in range(20):
        file = pictures / "reds" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture(number)))
        file.with_suffix(".txt").write_text(f"red {number}")
    build = ("source=folder", f"source.path={pictures}", f"out={shards}", "image_size_px=16", "workers=1")
    assert run(bare("-m", "diffusion_art.prepare", *build))[0] == 0
    status, said, _ = run(bare("-m", "diffusion_art.shards", "lint", f"path={shards}"))
    assert status == 0
    assert "0 errors" in said
    sheet = tmp_path / "sheet.png"
    assert run(bare("-m", "diffusion_art.shards", "preview", f"path={shards}", f"out={sheet}"))[0] == 0
    assert sheet.is_file()
    server = bare("-m", "diffusion_art.stream", f"data.path={shards}", "port=0")
    assert server.stdout is not None
    try:
        url = next(line for line in server.stdout if "ws://" in line).split()[-1]
        status, said, complaints = run(bare("-c", READ, url))
        assert status == 0, complaints
        assert said.startswith("['red ")
        assert said.endswith("False\n")
    finally:
        server.terminate()
        server.communicate()


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "extra"), [("train", "train"), ("sample", "paint"), ("serve", "serve"), ("watch", "serve")]
)
def test_a_command_that_needs_more_says_in_one_sentence_what_to_install(bare, name: str, extra: str):
    status, said, complaints = run(bare("-m", f"diffusion_art.{name}"))
    assert (status, said) == (1, "")
    assert complaints.count("\n") == 1
    assert f"python -m pip install -e '.[{extra}]'" in complaints
    assert "torch" in complaints


def test_nothing_is_missing_where_everything_is_installed():
    code = "from diffusion_art.extras import NEEDED, check_extra;[check_extra(extra) for extra in NEEDED];print('all')"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "all\n"
