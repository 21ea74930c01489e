"""The processes of a run hear of each other's end, whatever they wait for.

A process that waits for another in a collective of NCCL waits for minutes after that one was killed. So each keeps a
connection to process 0 beside the process group, on which nothing travels but how a process ended. The kernel closes
the connection of a killed process, and a machine that is lost is missed after `LOST_S` seconds.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

LOST_S = 20  # until a machine that does not answer is given up
PATIENCE_S = 5.0  # a broken collective is noticed before we hear whose process ended
LEAVES_S = 15.0  # until a process is ended that still waits for one that is gone
KILLED = "it was killed, often for want of memory, or it crashed"


@dataclass(frozen=True)
class Lost:
    """A process that ended before the run did, and why."""

    rank: int
    why: str


class Peers:
    """The connections of one process of a run: process 0 has one to each other, the others have one to it.

    `share` gives all processes what process 0 has (a broadcast). `leave` is called with what was lost, in a thread of
    its own, `LEAVES_S` seconds after that: the process is to end, whatever it does.
    """

    def __init__(self, *, rank: int, world: int, leave: Callable[[Lost], None] | None = None) -> None:
        self.rank, self.world = rank, world
        self.lost: Lost | None = None
        self._heard = threading.Event()
        self._closed = False
        self._leave = leave
        self._lines: dict[int, socket.socket] = {}
        self._lock = threading.Lock()

    def connect(self, share: Callable[[Any], Any], *, one_machine: bool) -> None:
        """Connect all processes; each of them has to call this."""
        if self.rank == 0:
            host = "127.0.0.1" if one_machine else os.environ.get("MASTER_ADDR", socket.gethostname())
            with socket.create_server(("127.0.0.1" if one_machine else "", 0), backlog=self.world) as listener:
                _, _, token = share((host, listener.getsockname()[1], secrets.token_hex(16)))
                self._accept(listener, token)
        else:
            host, port, token = share(None)
            self._lines[0] = socket.create_connection((host, port), timeout=60)
            _send(self._lines[0], {"token": token, "rank": self.rank})
        for rank, line in self._lines.items():
            _keep_alive(line)
            threading.Thread(target=self._listen, args=(rank, line), daemon=True, name=f"peer-{rank}").start()

    def _accept(self, listener: socket.socket, token: str) -> None:
        listener.settimeout(60)
        while len(self._lines) < self.world - 1:
            line, _ = listener.accept()
            line.settimeout(10)
            said = _receive(line.makefile("rb")) or {}
            if secrets.compare_digest(str(said.get("token", "")), token):
                self._lines[int(said["rank"])] = line
            else:
                line.close()

    def _listen(self, rank: int, line: socket.socket) -> None:
        said = _receive(line.makefile("rb"))
        if self._closed:
            return
        if said is None:
            self._hear(Lost(rank, KILLED))
        elif said["why"] is not None:
            self._hear(Lost(said["rank"], said["why"]))

    def _hear(self, lost: Lost) -> None:
        with self._lock:
            if self.lost is not None:
                return
            self.lost = lost
        if self.rank == 0:
            self._tell({"rank": lost.rank, "why": lost.why})
        self._heard.set()
        if self._leave is not None:
            time.sleep(LEAVES_S)
            if not self._closed:
                self._leave(lost)

    def _tell(self, said: dict[str, Any]) -> None:
        for line in self._lines.values():
            _send(line, said)

    def who_was_lost(self, *, wait_s: float = PATIENCE_S) -> Lost | None:
        """The process whose end this one suffers from, if it is one's; that may be heard a little later."""
        self._heard.wait(wait_s if self._lines else 0)
        return self.lost

    def close(self, why: str | None = None) -> None:
        """This process ends: as it should, or since something went wrong here (`why`)."""
        if self._closed:
            return
        self._closed = True
        if self.lost is None:
            self._tell({"rank": self.rank, "why": why})
        for line in self._lines.values():
            _shut(line)


def said_of(lost: Lost, *, world: int, go_on: str) -> str:
    """What the other processes say."""
    return f"process {lost.rank} of {world} ended, and so the run: {lost.why.rstrip('.')}. {go_on}"


def speaks(lost: Lost) -> bool:
    """Whether this process tells of it: one on each machine does."""
    here, rank = _numbered("LOCAL_RANK", "SLURM_LOCALID"), _numbered("RANK", "SLURM_PROCID")
    size = processes_started() or 1
    first_is_gone = lost.rank == rank - here
    return here == (1 if first_is_gone and size > 1 else 0)


def _numbered(*names: str) -> int:
    """By torchrun, else by SLURM."""
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def processes_started() -> int | None:
    """How many processes torchrun or SLURM started on this machine; None where neither did."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    by_hand = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # in a shell that SLURM gave
    if by_hand or "SLURM_NTASKS" not in os.environ:
        return None
    return int(os.environ["SLURM_NTASKS"]) // int(os.environ.get("SLURM_NNODES", 1))


def leave_at_once(sentence: str | None) -> None:
    """End this process from any thread. A collective that waits cannot be interrupted otherwise."""
    if sentence is not None:
        print(f"error: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(1)


def _send(line: socket.socket, said: dict[str, Any]) -> None:
    try:
        line.sendall(json.dumps(said).encode() + b"\n")
    except OSError as error:  # it is gone already
        log.debug("%s", error)


def _receive(file: Any) -> dict[str, Any] | None:
    """One message; None where the connection ended without one."""
    try:
        return json.loads(file.readline(65536) or "null")
    except (OSError, ValueError):
        return None


def _keep_alive(line: socket.socket) -> None:
    """Miss a machine that is gone after `LOST_S` seconds."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", LOST_S // 4), ("TCP_KEEPINTVL", LOST_S // 4), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # Linux has all of them
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _shut(line: socket.socket) -> None:
    try:
        line.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("%s", error)
    line.close()
