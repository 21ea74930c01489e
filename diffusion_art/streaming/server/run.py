"""The stream server as a process, or several of them: from a command line to SIGTERM.

One process serves from one event loop (service.py). Several share a port as a fleet (fleet.py), which this process
then watches over.

    python -m diffusion_art.streaming.server FOLDER --port 8000
"""

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial

from diffusion_art.errors import UserError
from diffusion_art.net import TOKEN_VARIABLE, allow_many_files, listen, url_of, warn_of_plain_tokens
from diffusion_art.shards.mixture import Shards, parts_of
from diffusion_art.shards.places import Address, Component, ShardSpec, components_of, spec_of_arguments
from diffusion_art.shards.remote.counts import totals
from diffusion_art.stop_signals import SIGNALS, exit_status
from diffusion_art.streaming.answer import describe
from diffusion_art.streaming.server.fleet import Door, Fleet
from diffusion_art.streaming.server.metrics import Row, Table
from diffusion_art.streaming.server.service import open_server
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.streaming.wire import PATH, StreamInfo

_BEAT_S = 0.25

Ready = Callable[[str, StreamInfo], None]

log = logging.getLogger(__name__)


def serve(
    spec: ShardSpec,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: Settings | None = None,
    processes: int = 1,
    listener: socket.socket | None = None,
    ready: Ready | None = None,
    parent: int | None = None,
) -> int | None:
    """Serve the shards that `spec` names until a stop signal, whose number is returned, or until `parent` is no longer
    our parent.

    With two processes or more this one watches over them. `ready` is called with the address and what is served,
    once clients can connect. UserError as from `Settings.open` and `open_server`.
    """
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise UserError(f"processes={processes!r} is not a number of server processes; give 1 or more")
    allow_many_files()
    settings, components = settings or Settings(), components_of(spec)
    if settings.tls is not None:
        settings.tls.context()
    with listener or listen(host, port, token=settings.token) as listener:
        shards = settings.open(components, progress=True)
        announce = partial(ready or _ignore, url_of(listener, scheme=settings.scheme, path=PATH), describe(shards))
        if processes == 1:
            return asyncio.run(_serve_alone(shards, settings, listener, announce, parent))
        del shards
        fleet = Fleet(components, settings, processes=processes, listener=listener)
        return asyncio.run(_serve_by(fleet, announce, parent))


async def _serve_alone(
    shards: Shards, settings: Settings, listener: socket.socket, ready: Callable[[], None], parent: int | None
) -> int | None:
    """The one process of a server."""
    table, stop = Table(1), _stop_on_signals()
    table.rows[0].begin()
    async with await open_server(shards, settings=settings, listener=listener, table=table):
        ready()
        _begin_copies(shards, settings)
        await _live(stop, parent, table.rows[0])
    return stop.number


async def _serve_by(fleet: Fleet, ready: Callable[[], None], parent: int | None) -> int | None:
    """The process that watches over the others."""
    stop = _stop_on_signals()
    life = asyncio.create_task(_live(stop, parent, None))
    try:
        await fleet.run(stop, ready)
    finally:
        life.cancel()
    return stop.number


async def _serve_at(
    door: int, components: Sequence[Component], settings: Settings, table: Table, row: int, parent: int
) -> None:
    """One of the others."""
    stop, counts = _stop_on_signals(), table.rows[row]
    counts.begin()
    entry = Door(door, counts, stop.set)
    shards = settings.open(components)
    async with await open_server(shards, settings=settings, listener=entry, table=table, counts=counts):
        entry.send(b"r")  # eady
        if row == 0:  # for all: their cache is one
            _begin_copies(shards, settings)
        await _live(stop, parent, counts)


def _begin_copies(shards: Shards, settings: Settings) -> None:
    if settings.copy_ahead:
        parts = [part for part in parts_of(shards) if isinstance(part.place, Address)]
        total_bytes = sum(part.manifest.total_bytes for part in parts)
        for part in parts:
            part.copy_ahead(beside_bytes=total_bytes - part.manifest.total_bytes)


async def _live(stop: asyncio.Event, parent: int | None, counts: Row | None) -> None:
    """Until `stop`, or until `parent` is gone, which is then set; `counts` shows that we live."""
    while not stop.is_set():
        if counts is not None:
            counts.show()
            counts.follow({f"remote_{name}": total for name, total in totals().items()})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _BEAT_S)
        if parent is not None and os.getppid() != parent:
            stop.set()


def _ignore(_: str, __: StreamInfo) -> None:
    """The default where no caller asks for the address."""


def announcement(settings: Settings) -> Ready:
    """Says what is served and where, and how to train on it."""

    def ready(url: str, info: StreamInfo) -> None:
        counts = ", ".join(f"{samples:,} {split}" for split, samples in info.splits.items())
        log.info("serving %s (%s samples, %d px) at %s", info.name, counts, info.image_size_px, url)
        log.info("train with data.url=%s%s; stop with Ctrl-C", url, " data.token=..." if settings.token else "")
        warn_of_plain_tokens(settings.token, settings.tls)

    return ready


class _Stop(asyncio.Event):
    """Set by a stop signal, whose `number` it keeps, or for another reason."""

    number: int | None = None

    def hear(self, number: int) -> None:
        self.number = self.number or number
        self.set()


def _stop_on_signals() -> _Stop:
    stop = _Stop()
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.hear, number)
    return stop


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. What a person has no use for is how ServerProcess and Fleet start their children."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_art.streaming.server", description="Serve shards.")
    parser.add_argument("folder", nargs="+", help="shards; several are read as one data set")
    parser.add_argument("--weights", type=float, nargs="+", help="the share of each folder, to mix them by")
    parser.add_argument("--captions", help="the caption template of each folder or null, as a JSON list")
    parser.add_argument("--remote", help="how addresses among them are read, as JSON (RemoteSettings)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--processes", type=int, default=1, help="server processes that share the port")
    parser.add_argument("--settings", action="store_true", help="read settings from standard input, as JSON")
    parser.add_argument("--listener", type=int, help="file descriptor of a listening socket, instead of host and port")
    parser.add_argument("--ready", type=int, help="file descriptor to write to when clients are answered")
    parser.add_argument("--parent", type=int, help="process id to stop with")
    parser.add_argument("--scratch", help="folder of that process, to remove when it is gone")
    parser.add_argument("--door", type=int, help="file descriptor by which a fleet hands over connections")
    parser.add_argument("--table", type=int, help="file descriptor of the fleet's table of metrics")
    parser.add_argument("--row", type=int, help="ours in that table")
    parser.add_argument("--rows", type=int, help="all of that table")
    options = parser.parse_args(arguments)
    folders = " ".join(options.folder)

    def ready(url: str, _: StreamInfo) -> None:
        if options.ready is None:
            sys.stderr.write(f"serving {folders} at {url}\n")
        else:
            os.write(options.ready, b"\n")
            os.close(options.ready)

    try:
        spec = spec_of_arguments(options.folder, options.weights, options.captions, options.remote)
        settings = Settings(token=os.environ.get(TOKEN_VARIABLE))
        if options.settings:
            settings = Settings.of_json(sys.stdin.read())
        if options.door is not None:
            allow_many_files()
            table = Table(options.rows, descriptor=options.table)
            work = _serve_at(options.door, components_of(spec), settings, table, options.row, options.parent)
            asyncio.run(work)
            return
        heard = serve(
            spec,
            host=options.host,
            port=options.port,
            settings=settings,
            processes=options.processes,
            listener=None if options.listener is None else socket.socket(fileno=options.listener),
            ready=ready,
            parent=options.parent,
        )
        if heard and options.parent is not None:
            sys.exit(exit_status(heard))  # which is how ServerProcess hears of it
    except UserError as error:
        sys.exit(f"error: {error}")
    finally:
        if options.scratch is not None and os.getppid() != options.parent:
            shutil.rmtree(options.scratch, ignore_errors=True)
