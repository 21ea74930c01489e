"""Paintings over HTTP, batched at every step: `python -m diffusion_art.serve run=logs/quickstart`.

A page at `/`, OpenAI's images API at `/v1`, EIR's `/predict`, the API's description at `/docs`. Runs until Ctrl-C or
SIGTERM, which let it finish what it has begun.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("serve")

import logging

from omegaconf import DictConfig

from diffusion_art.accel.cores import leave_cores
from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.devices import pick_device
from diffusion_art.net import Tls
from diffusion_art.runs import load_run
from diffusion_art.serving.engine.compiled import check_compile, open_engine
from diffusion_art.serving.listening import listen_at
from diffusion_art.serving.server import Announcement, check_drain, check_log_level, logging_from, make_server, serve
from diffusion_art.serving.settings import Settings, check_address
from diffusion_art.serving.studio import Studio
from diffusion_art.units import counted

log = logging.getLogger(__name__)


@command("serve")
def main(config: DictConfig) -> None:
    """Load the run, serve it, say where."""
    asked = plain(config)
    check_log_level(asked["log_level"])
    check_drain(asked["drain_s"])
    settings = Settings.of(asked)
    check_address(asked["host"], settings)
    tls = Tls.of(asked["tls"]["certificate"], asked["tls"]["key"])
    device = pick_device(asked["device"])
    check_compile(asked["compile"], device)
    cores = leave_cores()
    with listen_at(asked["host"], asked["port"]) as listener:
        run = load_run(asked["run"], which=asked["checkpoint"], weights=asked["weights"], device=device)
        engine, compilation = open_engine(run, asked["engine"], cores=cores, compiling=asked["compile"])
        studio = Studio(run, engine, settings)
        ready = Announcement(studio, tls, then=compilation.start if compilation else None)
        server = make_server(studio, drain_s=asked["drain_s"], tls=tls, ready=ready)
        with logging_from(asked["log_level"]):
            engine.start()
            try:
                serve(server, listener)
            finally:
                if compilation is not None:
                    compilation.stop()
            log.info("stopped; %s painted", counted(engine.stats().finished))


if __name__ == "__main__":
    main()
