"""The scripts of `examples/`, run as their readers would."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
SHELL = {"PATH": "/usr/local/bin:/usr/bin:/bin", "NO_PROXY": "*"}


def example(name: str):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, server, monkeypatch, tmp_path, capsys, *arguments: str) -> list[Path]:
    """Run a script in this process. Returns the files it names, opened once each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "--url", server.url, *arguments])
    example(name).main()
    files = [tmp_path / line for line in capsys.readouterr().out.split()]
    for file in files:
        with Image.open(file) as picture:
            picture.load()
    return files


def test_predict(server, monkeypatch, tmp_path, capsys):
    files = run("predict", server, monkeypatch, tmp_path, capsys, "a red house", "a blue house", "--out", "here")
    assert [file.name for file in files] == ["painting_00.png", "painting_01.png"]
    with Image.open(files[0]) as picture:
        assert picture.size == (16, 16)


def test_predict_passes_on_what_the_server_says(server, monkeypatch, tmp_path, capsys):
    with pytest.raises(Exception, match="422: At most 32 captions"):
        run("predict", server, monkeypatch, tmp_path, capsys, *(["x"] * 33))


def test_openai_client(server, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = run("openai_client", server, monkeypatch, tmp_path, capsys, "a red house", "--seed", "5")
    names = ["seed_5.png", "seed_6.png", "watched_0.png", "watched_1.png", "watched_2.png", "watched.png"]
    assert [file.name for file in files] == names


def test_tutorial_grid(server, monkeypatch, tmp_path, capsys):
    arguments = ["--steps", "2", "--guidance", "1.5", "--out", "grid.png"]
    (file,) = run("tutorial_grid", server, monkeypatch, tmp_path, capsys, *arguments)
    with Image.open(file) as picture:
        assert picture.width > 1500
    captions = example("tutorial_grid").CAPTIONS
    assert len(set(captions)) == 10
    assert all(caption.count(" / ") == 4 for caption in captions)


def test_sdapi(server, monkeypatch, tmp_path, capsys):
    files = run(
        "sdapi", server, monkeypatch, tmp_path, capsys, "a red house", "--seed", "5", "--steps", "3", "--size", "64"
    )
    assert [file.name for file in files] == ["seed_5.png", "seed_6.png"]
    with Image.open(files[1]) as picture:
        assert picture.size == (64, 64)
        assert "Seed: 6, Size: 16x16" in picture.text["parameters"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_commands_of_the_page_about_the_api(server, tmp_path):
    page = (EXAMPLES.parent / "docs" / "api.md").read_text()
    blocks = [block for block in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL) if "curl" in block]
    assert sum(block.count("curl ") for block in blocks) >= 7
    for block in blocks:
        commands = "set -e\n" + block.replace("http://localhost:8000", server.url).replace("curl -s", "curl -fsS")
        done = subprocess.run(["sh", "-c", commands], cwd=tmp_path, env=SHELL, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("{") > 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl(server, tmp_path):
    done = subprocess.run(
        ["sh", str(EXAMPLES / "curl.sh"), server.url], cwd=tmp_path, env=SHELL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("event: image_generation.") == 3  # of three steps: two looks and the picture
    for name in ("picture.png", "picture.webp"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (16, 16)
