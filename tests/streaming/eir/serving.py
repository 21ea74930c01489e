"""EIR's protocol 1.0 from both ends, written from its description alone: a client's requests, and a small server."""

import asyncio
import base64
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from diffusion_art.shards.mixture import open_shards
from diffusion_art.streaming.server.service import open_server
from diffusion_art.streaming.server.settings import Settings
from tests.streaming.pictures import picture, picture_caption, picture_key

HANDSHAKE = {"type": "handshake", "version": "1.0", "worker_id": 0}


class Eir:
    """What EIR's client says, and what it makes of the answers."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def say(self, kind: str, payload: Any = None) -> None:
        self.connection.send(json.dumps({"type": kind} | ({} if payload is None else {"payload": payload})))

    def hear(self) -> dict[str, Any]:
        text = self.connection.recv(10)
        assert isinstance(text, str)
        return json.loads(text)

    def ask(self, kind: str, payload: Any = None) -> dict[str, Any]:
        self.say(kind, payload)
        return self.hear()

    def data(self, samples: int) -> list[Any]:
        """The payload of one answer, or ["terminate"]."""
        answer = self.ask("getData", {"batch_size": samples})
        assert answer["type"] == "data"
        return answer["payload"]

    def ids(self, samples: int) -> list[str]:
        return [sample["sample_id"] for sample in self.data(samples)]

    def rest(self, samples: int) -> list[str]:
        """The ids of all that is left of the stream, in answers of `samples`."""
        found: list[str] = []
        while (payload := self.data(samples)) != ["terminate"]:
            found += [sample["sample_id"] for sample in payload]
        return found

    def reset(self) -> None:
        assert [self.ask("reset")["type"], self.hear()["type"]] == ["resetConfirmation", "reset"]

    def validate(self) -> None:
        """What EIR's client does on every new data connection, throwing the sample away."""
        assert self.ask("getInfo")["type"] == "info"
        assert len(self.data(1)) == 1
        assert self.ask("heartbeat") == {"type": "heartbeat"}
        self.reset()


@contextmanager
def eir(url: str) -> Iterator[Eir]:
    """A connection after its handshake."""
    with connect(url, proxy=None, compression=None, max_size=None, close_timeout=1) as connection:
        client = Eir(connection)
        connection.send(json.dumps(HANDSHAKE))
        assert client.hear() == {"type": "handshake", "version": "1.0"}
        yield client


@contextmanager
def _running(start: Any, stop: Any) -> Iterator[Any]:
    """What `start` gives, on an event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        started = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
        try:
            yield started
        finally:
            asyncio.run_coroutine_threadsafe(stop(started), loop).result(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _close(server: Any) -> None:
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0)


def _url(server: Any) -> str:
    return f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws"


@contextmanager
def serving(folder: Path, settings: Settings | None = None) -> Iterator[str]:
    """The address of our own server of `folder`, in this process."""
    with _running(lambda: open_server(open_shards(folder), settings=settings), _close) as server:
        yield _url(server)


@dataclass
class EirStreamer:
    """A server that speaks only protocol 1.0, one endless shuffled stream for all, as EIR's own does it.

    It sends `batch` samples whatever was asked for (0: what was asked for) and shuffles anew at each reset. With
    `told_all`, each reset is told to everybody. With `ends`, the stream ends after all its samples, and so does
    the connection. `unstable` numbers the samples by their place, so that ids mean nothing after a reset.
    """

    samples: int = 60
    batch: int = 32
    told_all: bool = True
    ends: bool = False
    unstable: bool = False
    says: dict[str, str] = field(default_factory=dict)  # raw answers, by the request's type
    heard: list[dict[str, Any]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    validation: set[str] = field(default_factory=set)
    connections: set[ServerConnection] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._random = random.Random(0)
        self._restart()

    def _restart(self) -> None:
        self._order = self._random.sample(range(self.samples), self.samples)
        self._place = 0

    def _next(self, count: int) -> list[dict[str, Any]]:
        batch = []
        while len(batch) < count:
            if self._place == self.samples:
                if self.ends:
                    break
                self._restart()
            i, place = self._order[self._place], self._place
            self._place += 1
            name = f"sample_{place}" if self.unstable else picture_key(i)
            if name in self.validation:
                continue
            image = base64.b64encode(picture(i)).decode()
            inputs = {"image": image, "caption": picture_caption(i)}
            batch.append({"inputs": inputs, "target_labels": {"image": {"image": image}}, "sample_id": name})
            self.sent.append(name)
        return batch

    async def converse(self, connection: ServerConnection) -> None:
        self.connections.add(connection)
        try:
            async for text in connection:
                if not await self._answer(connection, json.loads(text)):
                    return
        except ConnectionClosed:
            pass
        finally:
            self.connections.discard(connection)

    async def _answer(self, connection: ServerConnection, request: dict[str, Any]) -> bool:
        async def say(kind: str, payload: Any = None) -> None:
            await connection.send(json.dumps({"type": kind} | ({} if payload is None else {"payload": payload})))

        self.heard.append(request)
        kind, payload = request["type"], request.get("payload", {})
        if kind in self.says:
            await connection.send(self.says[kind])
        elif kind == "handshake":
            await connection.send(json.dumps({"type": "handshake", "version": "1.0"}))
        elif kind == "getInfo":
            described = {"image": {"type": "image", "shape": None}}
            caption = {"caption": {"type": "sequence", "shape": None}}
            await say("info", {"inputs": described | caption, "outputs": described})
        elif kind == "getData":
            batch = self._next(self.batch or payload["batch_size"])
            await say("data", batch or ["terminate"])
            return bool(batch)
        elif kind == "status":
            await say("status", {"position": self._place})
        elif kind == "setValidationIds":
            self.validation = set(payload["validation_ids"])
            await say("validationIdsConfirmation", {"message": "received"})
        elif kind == "reset":
            self._restart()
            await say("resetConfirmation", {"message": "done"})
            for other in self.connections if self.told_all else {connection}:
                await other.send(json.dumps({"type": "reset", "payload": {"message": "reset"}}))
        else:
            await say(kind)
        return True


@contextmanager
def streaming(streamer: EirStreamer, port: int = 0) -> Iterator[str]:
    """The address of `streamer`, at `port` or any free one."""

    async def start() -> Any:
        return await serve(streamer.converse, "127.0.0.1", port, ping_interval=None)

    with _running(start, _close) as server:
        yield _url(server)
