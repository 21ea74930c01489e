"""A server of a tiny model in this process, on a thread of its own, at a real port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusion_art.runs import Run, load_run
from diffusion_art.serving.engine.engine import Engine
from diffusion_art.serving.listening import listen_at, url_of
from diffusion_art.serving.server import DrainingServer, make_server
from diffusion_art.serving.settings import Settings
from diffusion_art.serving.studio import Studio


class Running:
    """`url` answers until the block ends; `studio`, `engine` and `server` are what answers there."""

    def __init__(self, run: Run, engine: Engine, settings: Settings | None, *, port: int = 0) -> None:
        self.engine = engine
        self.studio = Studio(run, engine, settings)
        self.listener = listen_at("127.0.0.1", port)
        self.url = url_of(self.listener)
        self._up = threading.Event()
        self.server: DrainingServer = make_server(self.studio, drain_s=60, ready=lambda _: self._up.set())
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def start(self) -> None:
        self.engine.start()
        self.thread.start()
        assert self._up.wait(30)

    def stop(self) -> None:
        self.server.should_exit = True
        self.server.force_exit = True
        self.thread.join()
        self.listener.close()
        self.studio.close()


@contextmanager
def serving(
    run: Path | Run,
    *,
    settings: Settings | None = None,
    port: int = 0,
    max_rows: int = 16,
    max_jobs: int = 64,
    precision: str = "fp32",
) -> Iterator[Running]:
    """A running server of the run, or of the run folder."""
    run = load_run(run) if isinstance(run, Path) else run
    engine = Engine(run.model, max_rows=max_rows, max_jobs=max_jobs, precision=precision)
    running = Running(run, engine, settings, port=port)
    running.start()
    try:
        yield running
    finally:
        running.stop()
