"""The network compiled for the processor it runs on, beside a server that paints with it as it is until then.

    compilation = Compilation(run, engine); compilation.start()

torch's ahead-of-time compiler joins norms, activations and casts to what stands next to them and lays out the weights
once, for any number of rows. That takes about a minute, so it happens in a process of its own (`compile_network.py`) of
the lowest priority, longer where the server is never idle, and the result is kept for the next start. It is machine
code: it lies in this user's cache and never in a run folder, since those are handed from one person to another.

`open_engine` makes the engine of a run, with what is faster here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from diffusion_art import __version__, accel, models
from diffusion_art.accel import switch
from diffusion_art.accel.ahead_of_time import CompiledNetwork
from diffusion_art.accel.graphs import Captured
from diffusion_art.errors import UserError
from diffusion_art.files import cache_folder, check_ours, newest_first
from diffusion_art.models.text_to_image import Network, TextToImage
from diffusion_art.models.weights_hash import see_weights
from diffusion_art.runs import Run
from diffusion_art.serving.engine.engine import Engine
from diffusion_art.tensors import Conditioning

KEPT = 8  # compiled networks, the ones used last
WORTH_S = 60.0  # of painting, after which a server is likely to go on long enough for compiling to pay
ROOM_BYTES = 4 * 2**30  # free memory without which nothing is compiled unasked; it takes about half
STALE_S = 3600.0  # after which what a killed process was building is cleared away

log = logging.getLogger(__name__)


def check_compiler(device: str | torch.device) -> None:
    """UserError where there is nothing to compile with, or nothing to compile for."""
    if torch.device(device).type != "cpu":
        raise UserError(f"compile=true is for the CPU, and this server paints on device={device}: leave it out.")
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name):
        raise UserError(
            "compile=true needs a C++ compiler, and neither $CXX nor g++ nor clang++ is one here: install one "
            "(Debian: apt-get install g++), or leave compile=true out."
        )


def worth_trying(device: str | torch.device) -> bool:
    """Whether to compile where nobody has asked for it or against it: there is a compiler, and memory to spare."""
    try:
        check_compiler(device)
    except UserError:
        return False
    return psutil.virtual_memory().available >= ROOM_BYTES


class Compilation:
    """Compiles the network of a run for an engine, or finds it compiled, and gives it to the engine.

    It begins to compile once the engine has painted for `after_s` seconds. What goes wrong is logged, as a warning
    where it was to compile at once, and the engine goes on with the network as it is.
    """

    def __init__(self, run: Run, engine: Engine, *, after_s: float = 0.0) -> None:
        self.run, self.engine, self.after_s = run, engine, after_s
        self.dtype = engine.precision or torch.float32
        self._process: subprocess.Popen[str] | None = None
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="compile", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Give up what is not done."""
        with self._lock:
            self._ending.set()
            if self._process is not None:
                kill(self._process)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self.engine.use(for_squares(CompiledNetwork(self._made(), dtype=self.dtype), self.run.model))
        except (OSError, RuntimeError) as error:
            if not self._ending.is_set():
                level = logging.INFO if self.after_s else logging.WARNING
                log.log(level, "the network is not compiled, and paints as it is: %s", error)
            return
        log.info("the network is compiled, and used so from now on")

    def _made(self) -> Path:
        """The compiled network's file.

        Raises:
            RuntimeError: it does not compile, or was not to be any more.
        """
        folder = cache_folder("compiled")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_ours(folder)
        clear(folder)
        path = folder / f"{fingerprint(self.run.model, self.run.config, self.dtype, self.engine.max_rows)}.so"
        if path.exists():
            path.touch()  # used last
            return path
        while self.engine.stats().painting_s < self.after_s:
            if self._ending.wait(1.0):
                raise RuntimeError("the server ends")
        log.info("compiling the network for this processor: a minute, more while it paints; kept in %s", folder)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=folder, prefix="building-", ignore_cleanup_errors=True) as building:
            made = Path(building) / "network.so"
            self._compile(made, Path(building))
            made.replace(path)
        log.info("compiled in %.0f s", time.monotonic() - began)
        return path

    def _compile(self, path: Path, building: Path) -> None:
        asked = {
            "checkpoint": str(self.run.checkpoint.resolve()),
            "weights": self.run.weights,
            "path": str(path.resolve()),
            "dtype": str(self.dtype).removeprefix("torch."),
            "max_rows": self.engine.max_rows,
        }
        said = building / "said"
        with said.open("w") as output:
            with self._lock:
                if self._ending.is_set():
                    raise RuntimeError("the server ends")
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "diffusion_art.serving.engine.compile_network", json.dumps(asked)],
                    stdin=subprocess.PIPE,  # it ends itself when this end is gone
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    text=True,
                    process_group=0,  # Linux gives another session as much of the processor, however nice it is
                    env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(building), "TMPDIR": str(building)},
                )
            with self._process as process:
                status = process.wait()
        if status:
            lines = said.read_text().strip().splitlines() or [f"its process ended with status {status}"]
            raise RuntimeError(lines[-1])


def for_squares(compiled: Network, model: TextToImage) -> Network:
    """The compiled network for latents of the shape that it was compiled for, the network as it is for others."""

    def network(x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        return (compiled if tuple(x_t.shape[1:]) == model.latent_shape else model.denoise)(x_t, t, cond)

    return network if model.sizes else compiled


def fingerprint(model: TextToImage, config: dict, dtype: torch.dtype, max_rows: int) -> str:
    """What a compiled network depends on, in a few letters: weights, settings, our code, torch, and the processor."""
    digest = hashlib.sha256()
    about = [__version__, torch.__version__, torch.backends.cpu.get_cpu_capability(), platform.machine(), _processor()]
    digest.update(json.dumps([*about, config["model"], str(dtype), max_rows], sort_keys=True).encode())
    ours = [source for package in (accel, models) for source in sorted(Path(package.__path__[0]).glob("*.py"))]
    for source in (*ours, Path(__file__).with_name("compile_network.py")):
        digest.update(source.read_bytes())
    see_weights(digest, model.backbone)
    return digest.hexdigest()[:24]


def _processor() -> str:
    """Its name and what it can do, where the system says so."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return platform.processor()


def clear(folder: Path) -> None:
    """Drop all compiled networks but those used last, and what killed processes left."""
    for path in newest_first(folder.glob("*.so"))[KEPT:]:
        path.unlink(missing_ok=True)
    for left in folder.glob("building-*"):
        if time.time() - left.stat().st_mtime > STALE_S:
            shutil.rmtree(left, ignore_errors=True)


def kill(process: subprocess.Popen[str]) -> None:
    """End it and the compilers it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


# ---------------------------------------------------------------------- opening


def check_compile(asked: bool | str, device: str) -> None:
    """UserError where `compile` is not a choice, or is true where nothing can be compiled."""
    if asked not in (True, False, "auto"):
        raise UserError(f"compile={asked} is not one of auto, true, false")
    if asked is True:
        check_compiler(device)


def open_engine(
    run: Run, settings: Mapping[str, Any], *, cores: int | None, compiling: bool | str
) -> tuple[Engine, Compilation | None]:
    """The engine, to be started, and the compilation of its network, to be started when the server answers.

    `compiling` is true, false or auto: where it pays. A GPU records the network's kernels unless it is false.

    Raises:
        UserError: settings that no engine can have.
    """
    try:
        engine = Engine(run.model, cores=cores, **settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"the engine cannot be made: {error} (in the config at `engine`)") from error
    if engine.model.device.type == "cuda" and compiling is not False and switch.ACCELERATES:
        engine.use(Captured.of(engine.model.backbone, dtype=engine.precision))
    if compiling is True or (compiling == "auto" and worth_trying(run.device)):
        return engine, Compilation(run, engine, after_s=0.0 if compiling is True else WORTH_S)
    return engine, None
