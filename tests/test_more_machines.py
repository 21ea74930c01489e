"""The commands under README's "When one machine is not enough", as they are written, with sizes appended."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest

from diffusion_art.checkpoints import load_text_to_image
from tests.conftest import ROOT
from tests.streaming.running import wait_until

STEPS = ["trainer.max_steps=2", "trainer.val_check_interval=2", "data.source.count=64"]
TINY = ["+debug=tiny", "name=quickstart", "data.image_size_px=64", "model.backbone.attention_sides=[16]"]
SMALL = {  # a word of the command -> what makes it small
    "+experiment=quickstart": [*TINY, *STEPS],
    "+experiment=autoencoder": [*STEPS, "data.val_samples=8"],
    "engine=ray": ["source.count=24"],
    "model/codec=vae": ["data.source.count=64"],
}


def commands(port: int) -> Iterator[list[str]]:
    """The words of each, the stream's port replaced by a free one."""
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"^## When one machine is not enough\n.*?```sh\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    for line in block.replace("8001", str(port)).splitlines():
        words = shlex.split(line, comments=True)
        yield words + [more for word, small in SMALL.items() if word in words for more in small]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def start(words: list[str], folder: Path) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    alone = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "PATH": path}
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, cwd=folder, env={**os.environ, **alone}, **said)  # type: ignore[call-overload]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[list[str]], str]]:
    """Runs a command to its end and returns what it said; a server is there until the test ends."""
    servers: list[subprocess.Popen[str]] = []

    def run(words: list[str]) -> str:
        process = start(words, tmp_path)
        if "diffusion_art.stream" in words:
            servers.append(process)
            (port,) = (int(word.partition("=")[2]) for word in words if word.startswith("port="))
            wait_until(lambda: answers(port), within_s=120)
            return ""
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, f"{shlex.join(words)}\n{said}"
        return said

    yield run
    for server in servers:
        for process in [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        server.communicate(timeout=30)


@pytest.mark.slow
@pytest.mark.longest
def test_the_commands_of_more_machines_do_as_they_are_written_what_readme_says(run, tmp_path: Path):
    port = free_port()
    said = [run(words) for words in commands(port)]
    runs, data = tmp_path / "logs" / "quickstart", tmp_path / "data"
    assert "starting 2 processes" in said[0]
    assert "MEMBER: 2/2" in said[1]  # torchrun's
    assert f"from ws://127.0.0.1:{port}/ws" in said[-1]
    assert len(list(runs.glob("*/checkpoints/step_00000002.ckpt"))) == 4
    shared = runs / "shared" / "checkpoints" / "step_00000002.ckpt"
    assert shared.is_file()  # of the folder that `trainer=fsdp` writes
    assert (
        load_text_to_image(shared).trainable_state().keys() == load_text_to_image(runs / "two").trainable_state().keys()
    )
    one, other = (pd.read_csv(runs / run / "metrics.csv")["train/loss"] for run in ("two", "shared"))
    pd.testing.assert_series_equal(one, other, rtol=1e-2)  # of bfloat16
    assert (data / "painter-128px" / "manifest.json").is_file()
    assert len(list(data.glob("painter-32px/precomputed/latents-*/about.json"))) == 1
