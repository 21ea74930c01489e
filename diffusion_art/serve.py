"""Paintings over HTTP, batched at every step: `python -m diffusion_art.serve run=logs/quickstart`.

A page at `/`, OpenAI's images API at `/v1`, EIR's `/predict`, the API's description at `/docs`. Runs until Ctrl-C or
SIGTERM, which let it finish what it has begun.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("serve")

import logging
import time

import psutil
from omegaconf import DictConfig

from diffusion_art.accel import switch
from diffusion_art.accel.cores import leave_cores
from diffusion_art.accel.graphs import Captured
from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.devices import pick_device
from diffusion_art.errors import UserError
from diffusion_art.net import Tls
from diffusion_art.runs import load_run
from diffusion_art.serving.engine.compiled import WORTH_S, Compilation, check_compiler, worth_trying
from diffusion_art.serving.engine.engine import Engine
from diffusion_art.serving.limits import Limits
from diffusion_art.serving.listening import listen_at
from diffusion_art.serving.server import make_server, serve
from diffusion_art.serving.settings import Settings, check_address, tokens_of
from diffusion_art.serving.studio import Studio

log = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error")


@command("serve")
def main(config: DictConfig) -> None:
    """Load the run, serve it, say where."""
    asked = plain(config)
    if asked["log_level"] not in LEVELS:
        raise UserError(f"log_level={asked['log_level']} is not one of {', '.join(LEVELS)}")
    settings = settings_of(asked)
    check_address(asked["host"], settings)
    tls = Tls.of(asked["tls"]["certificate"], asked["tls"]["key"])
    device = pick_device(asked["device"])
    if asked["compile"] not in (True, False, "auto"):
        raise UserError(f"compile={asked['compile']} is not one of auto, true, false")
    if asked["compile"] is True:
        check_compiler(device)
    cores = leave_cores()
    with listen_at(asked["host"], asked["port"]) as listener:
        run = load_run(
            asked["run"],
            which=asked["checkpoint"],
            weights=asked["weights"],
            device=device,
        )
        try:
            engine = Engine(run.model, cores=cores, **asked["engine"])
        except (TypeError, ValueError) as error:
            raise UserError(f"the engine cannot be made: {error} (in the config at `engine`)") from error
        if engine.model.device.type == "cuda" and asked["compile"] is not False and switch.ACCELERATES:
            engine.use(Captured.of(engine.model.backbone, dtype=engine.precision))
        studio = Studio(run, engine, settings)
        compilation = None
        if asked["compile"] is True or (asked["compile"] == "auto" and worth_trying(device)):
            compilation = Compilation(run, engine, after_s=0.0 if asked["compile"] is True else WORTH_S)

        def announce(url: str) -> None:
            at = settings.public_url or url
            log.info("%s (%s px, %s) is served at %s", studio.model.id, studio.size, studio.model.checkpoint, at)
            log.info("a page at /, the API at /docs; ready after %.1f s; stop with Ctrl-C", age_s())
            if settings.tokens and tls is None:
                log.info("without TLS the token can be read on the network; set tls.certificate and tls.key")
            if compilation is not None:
                compilation.start()

        server = make_server(studio, drain_s=asked["drain_s"], tls=tls, ready=announce)
        set_log_level(asked["log_level"])
        engine.start()
        try:
            serve(server, listener)
        finally:
            if compilation is not None:
                compilation.stop()
    log.info("stopped; %d pictures painted", engine.stats().finished)


def set_log_level(level: str) -> None:
    """Log from `level` on. Prompts are quoted at debug only."""
    logging.getLogger("diffusion_art").setLevel(level.upper())


def settings_of(asked: dict) -> Settings:
    """What the HTTP face is told. The token of the environment counts where the config has none.

    Raises:
        UserError: a token too short to be one, or a limit out of its range.
    """
    return Settings(
        tokens=tokens_of(asked["token"]),
        hosts=tuple(host.lower() for host in asked["hosts"]),
        cors=tuple(asked["cors"]),
        name=asked["name"],
        aliases=tuple(asked["aliases"]),
        public_url=asked["public_url"],
        limits=Limits(**asked["limits"]),
    )


def age_s() -> float:
    """Seconds since this process began."""
    return time.time() - psutil.Process().create_time()


if __name__ == "__main__":
    main()
