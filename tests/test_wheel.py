"""The package as it is handed on: an sdist, the wheel that is built from it, and commands in an environment with it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


def hatchling(source: Path, target: str, out: Path) -> Path:
    """The one file that a build leaves in `out`."""
    line = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    subprocess.run(line, cwd=source, check=True, capture_output=True, timeout=120)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the unpacked sdist: what is missing there is missing in both."""
    folder = tmp_path_factory.mktemp("built")
    with tarfile.open(hatchling(ROOT, "sdist", folder / "sdist")) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return hatchling(unpacked, "wheel", folder / "wheel")


@pytest.mark.slow
def test_the_wheel_holds_config_weights_and_the_page(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {
        f"diffusion_art/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.*") if path.is_file()
    }
    listed = subprocess.run(
        ["git", "ls-files", "diffusion_art", "hydra_plugins"], cwd=ROOT, capture_output=True, text=True
    )
    assert len(conf) > 80
    assert conf <= names
    assert set(listed.stdout.split()) <= names


@pytest.mark.slow
def test_commands_of_an_installed_wheel_compose_their_own_config(wheel: Path, tmp_path: Path):
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, timeout=120)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(
        sysconfig.get_path("purelib") + "\n"
    )  # all but the package, whose own .pth is unread
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*line: str) -> str:
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import diffusion_art.config as c; print(c.__file__, c.config_dir())"
    assert all(path.startswith(str(site)) for path in run(str(python), "-c", where).split())
    assert "image_size_px: 32" in run(str(python.parent / "diffusion-art-prepare"), "image_size_px=32", "--cfg", "job")
    assert "num_steps: 9" in run(
        str(python), "-m", "diffusion_art.sample", "run=x", "sampler=ddim", "num_steps=9", "--cfg", "job"
    )
    assert "training: wikiart" in run(str(python), "-m", "diffusion_art.end_to_end", "--cfg", "job")
