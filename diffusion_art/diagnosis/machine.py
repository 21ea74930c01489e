"""Disks, ports, the hub, limits of the system, and trackers."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from diffusion_art.diagnosis.finding import Finding
from diffusion_art.extras import install_command
from diffusion_art.files import cache_folder

PORT = 8000  # of `serve` and `stream`
HUB = "https://huggingface.co"
PATIENCE_S = 3.0
WRITTEN_BYTES = 16 << 20
FEW_GB, SLOW_MB_S, FEW_FILES = 5, 50, 1024


def disks(folders: dict[str, Path]) -> list[Finding]:
    """Space and speed of the disk below each folder; the folders need not be there yet."""
    found = []
    for name, folder in {**folders, "cache": cache_folder("")}.items():
        there = next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.is_dir())
        free = shutil.disk_usage(there).free / 1e9
        speed = _writes(there)
        told = f"{free:.0f} GB free, " + ("cannot be written to" if speed is None else f"writes {speed:.0f} MB/s")
        if speed is None:
            found.append(Finding(name, told, "impossible" if name == "logs" else "missing", _elsewhere(name)))
        elif free < FEW_GB:
            found.append(Finding(name, told, "slow", f"a full disk ends a run: {_elsewhere(name)}"))
        elif speed < SLOW_MB_S:
            found.append(Finding(name, told, "slow", _elsewhere(name)))
        else:
            found.append(Finding(name, told))
    return found


def _elsewhere(name: str) -> str:
    keys = {"data": "paths.data_dir=FOLDER", "logs": "paths.log_dir=FOLDER", "cache": "DIFFUSION_ART_CACHE=FOLDER"}
    return f"{keys[name]} is another place"


def _writes(folder: Path) -> float | None:
    """MB/s of a file that is written through to the disk, the faster of two; None where nothing can be written."""
    content = os.urandom(1 << 20) * (WRITTEN_BYTES >> 20)
    try:
        return max(_written(folder, content), _written(folder, content))
    except OSError:
        return None


def _written(folder: Path, content: bytes) -> float:
    with tempfile.TemporaryFile(dir=folder) as file:
        began = time.perf_counter()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return len(content) / 1e6 / (time.perf_counter() - began)


def network() -> list[Finding]:
    return [_loopback(), _port(), _hub()]


def _loopback() -> Finding:
    """Runs read their pictures over it."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 1):
            return Finding("loopback", "127.0.0.1 answers")
    except OSError as error:
        return Finding(
            "loopback", f"127.0.0.1 does not answer ({error.strerror})", "missing", "data.url=shards does without"
        )


def _port() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", PORT)):
            return Finding(f"port {PORT}", "free")
    except OSError:
        return Finding(f"port {PORT}", "taken", "ok", "serve and stream take another with port=8001")


def _hub() -> Finding:
    """Whether the hub answers, or the mirror that stands in for it, which is not named."""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "false", "no"):
        return Finding("hub", "switched off by HF_HUB_OFFLINE", "missing", "unset it to download data sets and towers")
    endpoint = os.environ.get("HF_ENDPOINT") or HUB
    name = "huggingface.co" if endpoint == HUB else "the hub of HF_ENDPOINT"
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PATIENCE_S):
            pass
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError):
        advice = "the quickstart needs none; wikiart takes source.path=FOLDER and model.text_encoder.pretrained=FILE"
        return Finding("hub", f"{name} cannot be reached", "missing", advice)
    return Finding("hub", f"{name} answers in {time.perf_counter() - began:.1f} s")


def limits() -> list[Finding]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = files < FEW_FILES
    found = [
        Finding("open files", f"{files:,} at most", "slow" if few else "ok", "ulimit -n 65536" if few else ""),
    ]
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free / 1e9
        advice = "loader workers hand batches over there: docker run --shm-size=8g, or data.num_workers=0"
        found.append(
            Finding("/dev/shm", f"{free:.1f} GB free", "slow" if free < 0.5 else "ok", advice if free < 0.5 else "")
        )
    return found


def trackers() -> list[Finding]:
    key = "WANDB_API_KEY" in os.environ or (Path.home() / ".netrc").exists()
    wandb = f"installed, {'a key is set' if key else 'no key: it keeps runs on this disk'}"
    told = {"wandb": wandb, "tensorboard": "installed", "trackio": "installed", "mlflow": "installed"}
    return [
        Finding(name, words) if find_spec(name) else Finding(name, "not installed", "ok", _tracker(name))
        for name, words in told.items()
    ]


def _tracker(name: str) -> str:
    return f"logger={name} needs it: {install_command('track' if name in ('wandb', 'tensorboard') else name)}"
