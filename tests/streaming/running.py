"""A server in this process, on a thread of its own."""

import asyncio
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.server.metrics import Figures, read_metrics
from diffusion_art.streaming.server.service import open_server
from diffusion_art.streaming.server.settings import Settings


@contextmanager
def _on_a_thread(opening: Coroutine[Any, Any, Any]) -> Iterator[int]:
    """The port of the server that `opening` opens."""
    loop = asyncio.new_event_loop()
    try:
        server = loop.run_until_complete(opening)
    except BaseException:
        loop.close()
        raise
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield next(iter(server.sockets)).getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(server.wait_closed(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def running(folder: Path | ShardSet, settings: Settings | None = None) -> Iterator[str]:
    """The address of a server of `folder`, or of shards that are open."""
    settings = settings or Settings()
    shards = folder if isinstance(folder, ShardSet) else ShardSet.open(folder)
    with _on_a_thread(open_server(shards, settings=settings)) as port:
        yield f"{settings.scheme}://127.0.0.1:{port}/ws"


@contextmanager
def proxied(url: str, *changes: tuple[bytes, bytes]) -> Iterator[str]:
    """The address of the server at `url` below /art/ of a proxy, which makes changes to what is asked."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        for before, after in ((b" /art/", b" /"), *changes):
            asked = asked.replace(before, after)
        answers, asking = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        asking.write(asked)
        await asyncio.gather(_pump(reader, asking), _pump(answers, writer))

    with _on_a_thread(asyncio.start_server(pass_on, "127.0.0.1", 0)) as port:
        yield f"ws://127.0.0.1:{port}/art/ws"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def http(url: str, path: str, **headers: str) -> tuple[int, str, str]:
    """Status, content type and body of a GET at the server whose stream is at `url`."""
    request = urllib.request.Request(url.replace("ws://", "http://").replace("/ws", path), headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as response:
            return response.status, response.headers["Content-Type"], response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def figures_of(url: str) -> Figures:
    """What the server at `url` counts; one that wants no token."""
    return read_metrics(http(url, "/metrics")[2])[0]


def wait_until(condition: Callable[[], object], *, within_s: float = 30) -> None:
    """Returns as soon as `condition()` is true; fails after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
