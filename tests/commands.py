"""Commands in processes of their own, forked from one that has imported the libraries, which takes seconds.

`Command` is `subprocess.Popen` but for that. `[sys.executable, "-m", "diffusion_art.NAME", ...]` is forked, from the
second one of a test process on. The first is started as ever, and so is a command that imports little, or one whose
environment changes what a library reads when it is imported. The forking steps in at private methods of Popen, which
are those of Python 3.11 to 3.13; where they are others, all commands are started as ever.

Forked commands share the seed of Python's hashes: two of them never see a set in two orders. `tests/golden` does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import inspect
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
LIBRARIES = ("lightning.pytorch", "torchvision", "diffusers.models.autoencoders.autoencoder_dc", "hydra")
HEAVY = ("consolidate", "evaluate", "export", "posthoc_ema", "sample", "schedule_search", "serve", "train")
COMMON = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "PYTHONPATH": str(ROOT)}
PIPES = ["p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite"]
READ_AT_IMPORT = ("CUDA", "HF_", "LD_", "MKL", "MPL", "OMP_", "PYTHON", "TORCH_", "TRANSFORMERS", "USE_", "XDG_")


def _read_at_import(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_IMPORT)}


class _Nursery:
    """The process that commands are forked from, started with the first of them."""

    def __init__(self) -> None:
        self.environment = {**os.environ, **COMMON}
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            line = [sys.executable, "-m", "tests.commands", str(theirs.fileno())]
            self.process = subprocess.Popen(
                line, cwd=ROOT, env=self.environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        atexit.register(self.close)

    def close(self) -> None:
        self.ours.shutdown(socket.SHUT_RDWR)  # not `close`: a process that a test forked may hold it too
        self.process.wait(10)

    def start(self, asked: dict[str, Any], descriptors: list[int]) -> tuple[int, socket.socket]:
        """The new process's id and a socket that tells how it ended."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self.ours, [json.dumps(asked).encode()], [theirs.fileno(), *descriptors])
        return int(ours.recv(20)), ours


_nursery: _Nursery | None = None
_started = 0


def _is_heavy(args: list[str]) -> bool:
    words = [str(word) for word in args[:3]]
    return words[:2] == [sys.executable, "-m"] and words[2] in {f"diffusion_art.{name}" for name in HEAVY}


def _is_known() -> bool:
    """Whether Popen hands over what `Command` expects."""
    handed = list(inspect.signature(subprocess.Popen._execute_child).parameters)
    return len(handed) == 24 and handed[11:17] == PIPES and handed[22] == "start_new_session"


class Command(subprocess.Popen):
    _told: socket.socket | None = None

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *more) -> None:
        global _nursery, _started
        environment = dict(os.environ if env is None else env)
        plain = _is_known() and preexec_fn is None and not pass_fds and _is_heavy(args)
        plain = plain and more[3] == -1  # its stdin is no pipe
        plain = plain and _read_at_import(environment) == _read_at_import({**os.environ, **COMMON})
        _started += plain
        if not plain or _started == 1:
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *more)
            return
        _nursery = _nursery or _Nursery()
        _, _, _, *pipes, _, _, _, _, _, new_session, _ = more
        asked = {"words": [str(word) for word in args[2:]], "cwd": str(cwd or Path.cwd()), "environment": environment}
        asked["new_session"] = new_session
        said, complaints = pipes[3], pipes[5]
        self.pid, self._told = _nursery.start(asked, [1 if said == -1 else said, 2 if complaints == -1 else complaints])
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _ended(self, seconds: float | None) -> bool:
        assert self._told is not None
        if self.returncode is None and select.select([self._told], [], [], seconds)[0]:
            self.returncode = int(self._told.recv(20) or -signal.SIGKILL)
            self._told.close()
        return self.returncode is not None

    def _internal_poll(self, *args: Any, **more: Any) -> int | None:
        if self._told is None:
            return super()._internal_poll(*args, **more)
        self._ended(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self._told is None:
            return super()._wait(timeout)
        if not self._ended(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode


def main() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    asked = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    while True:
        message, descriptors, *_ = socket.recv_fds(asked, 1 << 20, 3)
        if not message:
            return None
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            _reap()
        else:
            asked.close()
            return _command(json.loads(message), descriptors)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _command(asked: dict[str, Any], descriptors: list[int]) -> None:
    """Two processes: one waits for the command and tells how it ended; in the other this becomes the command."""
    teller = socket.socket(fileno=descriptors[0])
    pid = os.fork()
    if pid:
        teller.send(str(pid).encode())
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        status = os.waitpid(pid, 0)[1]
        teller.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    teller.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    np.random.seed()  # else all would draw the same
    for descriptor, standard in zip(descriptors[1:], (1, 2), strict=True):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    if asked["new_session"]:
        os.setsid()
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    name, *arguments = asked["words"]
    sys.argv[:] = [name, *arguments]
    sys.path[:] = [asked["cwd"], *(part for part in sys.path[1:])]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
