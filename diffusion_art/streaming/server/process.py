"""A stream server of one's own: a child process that comes back when it dies and goes with its parent."""

import contextlib
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import diffusion_art
from diffusion_art.errors import UserError
from diffusion_art.net import TOKEN_VARIABLE
from diffusion_art.shards.places import ShardSpec, arguments_of, components_of
from diffusion_art.stop_signals import stop_signal
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.streaming.wire import PATH

SERVER = (sys.executable, "-m", "diffusion_art.streaming.server")  # the command; its arguments are in run.main

_READY_WITHIN_S = 60
_STOP_WITHIN_S = 5
_MAX_FAILED_STARTS = 5

log = logging.getLogger(__name__)


class ServerProcess:
    """Serves what `spec` names on a loopback port (0: any free one) from a child process, until `stop`.

    The listening socket is ours and the child inherits it: while a dead child is replaced nobody else can
    take the port, and clients that connect wait instead of being refused. A child that dies is replaced at
    once, however often; one that cannot even start, five times in a row, is given up. When this process
    dies, in whatever way, so does the child. Use it as a context manager. With several `processes` the child
    is the one that watches over them. A child that was asked to stop by somebody else (stop_signals.py) is replaced
    too, and `told` is called with the number of the signal, in a thread.

    UserError when the shards are not sound (open_shards), the port is taken or the server does not start.
    """

    def __init__(
        self,
        spec: ShardSpec,
        *,
        port: int = 0,
        settings: Settings | None = None,
        processes: int = 1,
        told: Callable[[int], object] | None = None,
    ) -> None:
        self._components, self._settings = components_of(spec), settings or Settings()
        self._processes, self._told = processes, told
        self._what = " + ".join(str(component.path) for component in self._components)
        self._settings.open(self._components, progress=True)
        self._owner = os.getpid()
        self._stopping = threading.Event()
        self._scratch = tempfile.mkdtemp(prefix="diffusion-art-")
        self._tidy_up = weakref.finalize(self, _remove, self._scratch, self._owner)
        if self._settings.eir_state is None:  # ours, so that it outlives a child
            self._settings = replace(self._settings, eir_state=str(Path(self._scratch) / "eir.sqlite"))
        try:
            self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        except OSError as error:
            raise UserError(f"cannot serve shards on port {port} ({error.strerror}); choose another one") from None
        self.url = f"{self._settings.scheme}://127.0.0.1:{self._listener.getsockname()[1]}{PATH}"
        try:
            self._child = self._start()
        except BaseException:
            self._listener.close()
            raise
        self._supervisor = threading.Thread(target=self._supervise, name="stream server supervisor", daemon=True)
        self._supervisor.start()

    @property
    def pid(self) -> int:
        """Process id of the server as it runs now; another after a restart."""
        return self._child.pid

    def alive(self) -> bool:
        """Whether a server process is running."""
        return self._child.poll() is None

    def stop(self) -> None:
        """End the server. Does nothing in a forked child of the process that started it."""
        if os.getpid() != self._owner or self._stopping.is_set():
            return
        self._stopping.set()
        self._child.terminate()
        self._supervisor.join(_STOP_WITHIN_S)
        if self._supervisor.is_alive():
            self._child.kill()
            self._supervisor.join()
        self._listener.close()
        self._tidy_up()

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> subprocess.Popen:
        """A child that answers clients; UserError when it ends before it does, or keeps us waiting."""
        read_end, write_end = os.pipe()
        listener = self._listener.fileno()
        command = [*SERVER, *arguments_of(self._components), "--settings", "--processes", str(self._processes)]
        command += ["--listener", str(listener), "--ready", str(write_end), "--parent", str(os.getpid())]
        command += ["--scratch", self._scratch]
        try:
            child = subprocess.Popen(
                command,
                env=child_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(listener, write_end),
                start_new_session=True,  # Ctrl-C in the terminal is for the trainer, which then stops us
            )
        finally:
            os.close(write_end)
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin as settings:
            settings.write(self._settings.to_json().encode())
        try:
            poll = select.poll()
            poll.register(read_end, select.POLLIN)
            if not (poll.poll(1000 * _READY_WITHIN_S) and os.read(read_end, 1)):
                child.kill()
                raise UserError(
                    f"the stream server of {self._what} did not start ({reason(child.wait())}); see what "
                    f"it said above, or with `python -m diffusion_art.stream data.path=FOLDER`"
                )
        finally:
            os.close(read_end)
        return child

    def _supervise(self) -> None:
        failed_starts = 0
        while failed_starts < _MAX_FAILED_STARTS:
            status = self._child.wait()
            if self._stopping.wait(0.1 * failed_starts):
                return
            if self._told is not None and (number := stop_signal(status)):
                self._told(number)
            else:
                log.warning("the stream server ended by itself (%s), starting it again", reason(status))
            try:
                self._child = self._start()
                failed_starts = 0
            except (UserError, OSError) as error:
                log.warning("%s", error)
                failed_starts += 1
            if self._stopping.is_set():  # since we asked
                self._child.terminate()
        log.error("the stream server of %s does not start, giving it up", self._what)
        self._listener.close()  # so that clients are refused rather than left waiting


def child_environment() -> dict[str, str]:
    """Ours, so that a child finds this package wherever it runs from; secrets travel another way."""
    root = str(Path(diffusion_art.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {key: value for key, value in os.environ.items() if key != TOKEN_VARIABLE}
    return {**environment, "PYTHONPATH": path}


def _remove(folder: str, owner: int) -> None:
    """Unless this is a forked child of its owner."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def reason(status: int) -> str:
    """Why a process ended, by its exit status."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
