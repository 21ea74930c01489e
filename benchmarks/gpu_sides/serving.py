"""Our server against LitServe on one device: same network, sampler, precision and replayed calls, same clients."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from serve_sides.servers import BUILD, Server, litserve, ours
from stream_peers.environments import python_of
from stream_sides.running import SideError, run

from diffusion_art.exported import write_exported
from diffusion_art.record import Record
from diffusion_art.training.build import build_module
from gpu_sides.ground import Ground
from gpu_sides.part import NotMeasured, Part, Raw, Rows, compared

RATE = "requests/s, 128 px, steps mixed from 4 to 50, 64 clients"
P95 = "p95 of 4-step requests among them, s"
LIT = "LitServe, max_batch_size 16, same network, sampler and replayed calls"
LEAD_S = 8.0  # until short and long requests end as often as they will


def _serving(ground: Ground) -> Raw:
    """The saturated rate and the 95th percentile of the shortest requests, of each side alone on the device."""
    python, model = lit_python(), write_model(ground)
    short = str(min(ground.scale.served_steps))
    raw: Raw = {}
    for side in ("peer", "ours"):
        try:
            with _server(side, model, ground, python) as server:
                found = _load(server, ground)
        except SideError as error:
            raise NotMeasured(f"{LIT if side == 'peer' else 'our server'}: {error}") from error
        if not found["taken"][short]:
            raise NotMeasured(f"no request of {short} steps was answered in {ground.scale.serve_s:g} s")
        raw[side] = {"rate": found["rate"], "p95": float(np.percentile(found["taken"][short], 95))}
    return raw


def _server(side: str, model: Path, ground: Ground, python: Path) -> AbstractContextManager[Server]:
    if side == "peer":
        return litserve(model, python, device=ground.device.type)
    return ours(model, f"compile={'auto' if ground.on_gpu else 'false'}", f"device={ground.device.type}")


def _load(server: Server, ground: Ground) -> dict[str, Any]:
    scale = ground.scale
    asked = {"clients": scale.clients, "seconds": scale.serve_s, "steps": list(scale.served_steps)}
    lead_s = LEAD_S if ground.on_gpu else 1.0
    return run(sys.executable, "serve_sides.load", {"url": server.url, "lead_s": lead_s, **asked})


def lit_python() -> Path:
    """This interpreter where it has LitServe, else one of an environment of its own.

    Raises:
        NotMeasured: it does not install.
    """
    if find_spec("litserve"):
        return Path(sys.executable)
    for name, value in {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "10"}.items():  # for a machine without a network
        os.environ.setdefault(name, value)
    try:
        requirements = Path(__file__).parents[1] / "serve_sides" / "requirements.txt"
        return python_of("litserve", BUILD / "environments", requirements=requirements)
    except (RuntimeError, OSError) as error:
        raise NotMeasured(f"LitServe does not install: {error}") from error


def write_model(ground: Ground) -> Path:
    """The network of `wikiart` with random weights, as a file that both sides serve."""
    module = build_module(ground.settings("compile=false"))
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    path = ground.folder / "served" / "model.safetensors"
    weights = {name: value.contiguous() for name, value in module.model.trainable_state().items()}
    write_exported(path, Record.of(checkpoint), weights, weights="ema", checkpoint="random")
    return path


def _rows(raw: Raw, about: dict[str, Any]) -> Rows:
    rows = []
    for line, key, goal in ((RATE, "rate", {"at_least": 2.5}), (P95, "p95", {"at_most": 0.1})):
        ours, peer = raw["ours"][key], raw["peer"][key]
        rows.append(compared(line, ours=ours, peer=peer, peer_name=LIT, ratios=[ours / peer], **goal, **about))
    return rows


serving = Part("serving", (RATE, P95), 70, _serving, _rows)
