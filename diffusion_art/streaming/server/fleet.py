"""Several server processes on one port: a process that accepts connections and hands each to one of them.

Left to the kernel, the processes that share a listening socket get connections unevenly: one takes all that come
at once, and a trainer has few but lasting ones. So here the parent accepts, gives each connection to the process
that has the fewest (SCM_RIGHTS), and starts a new process where one has died. It reads no byte of a connection.
While all processes are dead, connections wait in the socket's queue.
"""

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.net import until_one_ends
from diffusion_art.shards.places import Component, arguments_of
from diffusion_art.streaming.server.metrics import Row, Table
from diffusion_art.streaming.server.process import SERVER, child_environment, reason
from diffusion_art.streaming.server.settings import Settings

_READY_WITHIN_S = 60
_STOP_WITHIN_S = 5
_MAX_FAILED_STARTS = 5  # of one process, while no other lives
_LONGEST_DELAY_S = 30.0

log = logging.getLogger(__name__)


class Door(socket.socket):
    """The child's end: stands where asyncio expects a listening socket, and accepts what the parent hands over.

    `row` counts the connections that have ended, however they did. `on_end` is called when the parent is gone.
    """

    def __init__(self, descriptor: int, row: Row, on_end: Callable[[], None]) -> None:
        super().__init__(fileno=descriptor)
        self._row, self._on_end = row, on_end

    def listen(self, backlog: int = 0, /) -> None:
        """The parent does."""

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection handed over; BlockingIOError when there is none now."""
        message, descriptors, _, _ = socket.recv_fds(self, 1, 1)
        if not message:
            self._on_end()
            raise BlockingIOError
        if not descriptors:  # no room for another file: the kernel has closed it
            self._row.add("ended")
            raise ConnectionAbortedError
        connection = _Counted(fileno=descriptors[0])
        connection.row = self._row
        try:
            return connection, connection.getpeername()
        except OSError:  # the client has left again
            connection.close()
            raise ConnectionAbortedError from None


class _Counted(socket.socket):
    """A connection whose end is counted."""

    row: Row | None = None

    def close(self) -> None:
        row, self.row = self.row, None
        if row is not None:
            row.add("ended")
        super().close()


class _Slot:
    """A place in the fleet: the process that has it, if any, and what it was given."""

    def __init__(self, number: int, row: Row) -> None:
        self.number, self.row = number, row
        self.child: asyncio.subprocess.Process | None = None
        self.door: socket.socket | None = None  # our end, once the process is ready
        self.given = 0

    def load(self) -> tuple[bool, float]:
        """The smaller, the more fit for another connection. One that hangs is the last."""
        return not self.row.fresh, self.given - self.row.get("ended")

    def take(self, connection: socket.socket) -> bool:
        """Hand over; False when the process is gone, or takes nothing."""
        if self.door is None:
            return False
        try:
            socket.send_fds(self.door, [b"c"], [connection.fileno()])
        except OSError:
            return False
        self.given += 1
        return True


class Fleet:
    """`processes` servers of `components` on `listener`, which must be listening, until `run` is told to stop."""

    def __init__(
        self, components: Sequence[Component], settings: Settings, *, processes: int, listener: socket.socket
    ) -> None:
        self._components, self._settings, self._listener = components, settings, listener
        self._processes = processes

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Serve until `stop`; `ready` is called when all processes answer.

        UserError when one does not start, or when later on all have died and none can be started.
        """
        with contextlib.ExitStack() as stack:
            table, self._descriptor = stack.enter_context(Table.shared(self._processes))
            if self._settings.eir_state is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="diffusion-art-"))
                self._settings = replace(self._settings, eir_state=str(Path(folder) / "eir.sqlite"))
            self._slots = [_Slot(number, row) for number, row in enumerate(table.rows)]
            self._someone = asyncio.Event()  # is ready for connections
            try:
                results = await until_one_ends(self._work(ready), stop.wait())
            finally:
                await self._end()
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def _work(self, ready: Callable[[], None]) -> None:
        started = await asyncio.gather(*map(self._start, self._slots))
        if not all(started):
            raise UserError("the stream server did not start; see what its processes said above")
        ready()
        try:
            async with asyncio.TaskGroup() as group:
                for slot in self._slots:
                    group.create_task(self._keep(slot))
                group.create_task(self._hand_out())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _hand_out(self) -> None:
        """Give each new connection to the process with the fewest."""
        self._listener.setblocking(False)
        turn = 0
        while True:
            await self._someone.wait()
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            except OSError as error:
                log.warning("a connection could not be accepted (%s)", error.strerror)
                await asyncio.sleep(0.1)
                continue
            with connection:
                turn += 1
                while not self._give(connection, turn):
                    await asyncio.sleep(0.05)
                    await self._someone.wait()

    def _give(self, connection: socket.socket, turn: int) -> bool:
        """To the one with the least load; equal ones take turns."""
        first = turn % len(self._slots)
        around = self._slots[first:] + self._slots[:first]
        return any(slot.take(connection) for slot in sorted(around, key=_Slot.load))

    async def _keep(self, slot: _Slot) -> None:
        """Start another process for `slot` whenever its own has died."""
        failures = 0
        while True:
            if slot.child is not None:
                status = await slot.child.wait()
                self._leave(slot)
                log.warning("server process %d ended by itself (%s), starting another", slot.number, reason(status))
            await asyncio.sleep(_delay_s(failures))
            if await self._start(slot):
                failures = 0
                continue
            failures += 1
            if failures >= _MAX_FAILED_STARTS and not self._someone.is_set():
                raise UserError("the server processes have died and cannot be started; see what they said above")

    async def _start(self, slot: _Slot) -> bool:
        """Whether a process for `slot` answers now."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        slot.row.retire()
        command = [*SERVER, *arguments_of(self._components), "--settings", "--parent", str(os.getpid())]
        command += ["--door", str(theirs.fileno()), "--table", str(self._descriptor)]
        command += ["--row", str(slot.number), "--rows", str(self._processes)]
        answered = b""
        try:
            with theirs:
                child = await asyncio.create_subprocess_exec(
                    *command,
                    env=child_environment(),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), self._descriptor),
                    start_new_session=True,  # Ctrl-C in the terminal is for us, who then stop them
                )
            slot.child = child
            assert child.stdin is not None
            child.stdin.write(self._settings.to_json().encode())
            child.stdin.close()
            async with asyncio.timeout(_READY_WITHIN_S):
                answered = await asyncio.get_running_loop().sock_recv(ours, 1)
        except TimeoutError:
            log.warning("server process %d is not ready within %d s", slot.number, _READY_WITHIN_S)
        except OSError as error:
            log.warning("server process %d does not start (%s)", slot.number, error)
        finally:
            if not answered:
                ours.close()
        if not answered:
            await _kill(slot)
            return False
        slot.door, slot.given = ours, 0
        self._someone.set()
        return True

    def _leave(self, slot: _Slot) -> None:
        """Its process is gone."""
        if slot.door is not None:
            slot.door.close()
        slot.door = slot.child = None
        slot.row.retire()
        if not any(other.door for other in self._slots):
            self._someone.clear()

    async def _end(self) -> None:
        """End all processes, gently at first."""
        children = [slot.child for slot in self._slots if slot.child is not None]
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_WITHIN_S):
                await asyncio.gather(*(child.wait() for child in children))
        for slot in self._slots:
            await _kill(slot)
            self._leave(slot)


def _delay_s(failures: int) -> float:
    """The wait before a process is started, after so many starts in a row that failed."""
    return min(_LONGEST_DELAY_S, 0.1 * 2 ** min(failures, 10)) if failures else 0.0


async def _kill(slot: _Slot) -> None:
    if slot.child is not None:
        with contextlib.suppress(ProcessLookupError):
            slot.child.kill()
        await slot.child.wait()
        slot.child = None
