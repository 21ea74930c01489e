"""Two small runs under `logs/`, and a real server that watches them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from diffusion_art.serving.listening import AnnouncedServer, config_of, listen_at, url_of
from diffusion_art.serving.settings import Settings
from diffusion_art.watching.app import create_app
from diffusion_art.watching.runs import Runs

CONFIG = """\
name: night
run: {name}
data: {{path: data/painter, token: hush}}
optim: {{lr: {lr}, _target_: torch.optim.AdamW}}
trainer:
  max_steps: 40
paths: {{run_dir: {run}}}
callbacks: {{samples: {{folder: {run}/samples}}}}
"""
LOG = "2026-11-28 12:00:00,123 INFO diffusion_art.train: run: logs/night\n"


def write_run(run: Path, *, lr: float, rows: int = 40, grids: tuple[int, ...] = (0, 20)) -> Path:
    """A finished run as training leaves it."""
    (run / "samples").mkdir(parents=True)
    lines = ["step,time/run_s,train/loss,val/loss"]
    for step in range(rows):
        lines.append(f"{step},{step * 0.5},{1 / (1 + 10 * lr * step)},{0.9 if step % 10 == 9 else ''}")
    (run / "metrics.csv").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    (run / "config.yaml").write_text(CONFIG.format(name=run.name, lr=lr, run=run))
    (run / "train.log").write_text(LOG)
    (run / ".running").write_text("process 1 on night")
    for step in grids:
        Image.new("RGB", (96, 64), (int(255 * lr), step, 90)).save(run / "samples" / f"step_{step:08d}.png")
    (run / "report.md").write_text("# night\n")
    (run / "report.html").write_text(f"<h1>{run.name}</h1><script>document.title = 'drawn'</script>")
    return run


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    write_run(tmp_path / "logs/night/first", lr=0.1)
    write_run(tmp_path / "logs/night/sweep_one/1", lr=0.5, grids=(0, 10))
    return tmp_path / "logs"


@contextmanager
def watching(logs: Path, settings: Settings | None = None) -> Iterator[str]:
    """The address of a server of these runs."""
    settings = settings or Settings()
    up = threading.Event()
    with listen_at("127.0.0.1", 0) as listener:
        app = create_app(Runs(logs.resolve()), settings)
        server = AnnouncedServer(config_of(app, settings.limits), ready=lambda _: up.set())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert up.wait(30)
        yield url_of(listener)
        server.should_exit = server.force_exit = True
        thread.join()


@pytest.fixture
def client(logs) -> Iterator[httpx2.Client]:
    with watching(logs) as url, httpx2.Client(base_url=url, trust_env=False, timeout=60) as client:
        yield client
