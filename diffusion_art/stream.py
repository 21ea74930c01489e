"""Serve shards to trainings: `python -m diffusion_art.stream data.path=data/wikiart-128px`.

The path may be an address, as s3://bucket/wikiart-128px (docs/remote.md). Trainings read the shards with
`data.url=ws://HOST:8000/ws`, also from other machines. Runs until Ctrl-C or SIGTERM, and may be started again under
running trainings: they wait, and go on as if nothing had happened.

    python -m diffusion_art.stream --status ws://HOST:8000/ws     what servers are doing, as a live table
"""

import functools
import logging
import sys

from omegaconf import DictConfig, OmegaConf

from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.errors import UserError
from diffusion_art.net import Tls, token_of
from diffusion_art.shards.mixture import with_remote, with_template
from diffusion_art.shards.places import RemoteSettings
from diffusion_art.streaming import status
from diffusion_art.streaming.server.limits import Limits
from diffusion_art.streaming.server.run import serve
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.streaming.wire import StreamInfo

log = logging.getLogger(__name__)


def settings_of(config: DictConfig) -> Settings:
    """How `config` wants its shards served. UserError for half a certificate, or a limit out of its range."""
    return Settings(
        token=token_of(config.token),
        tls=Tls.of(config.tls.certificate, config.tls.key),
        limits=Limits.of(plain(config.limits)),
        decode=config.decode,
        cache=config.cache,
        eir_seed=config.eir.seed,
        eir_epochs=config.eir.epochs,
        eir_state=config.eir.state,
    )


@command("stream")
def _serve(config: DictConfig) -> None:
    """Say what is served and where, then serve it."""
    if OmegaConf.is_missing(config.data, "path"):
        raise UserError("there is nothing to serve; name a folder of shards with data.path=data/NAME")
    settings, remote = settings_of(config), RemoteSettings.of(plain(config.data.remote))

    def announce(url: str, info: StreamInfo) -> None:
        counts = ", ".join(f"{samples:,} {split}" for split, samples in info.splits.items())
        log.info("serving %s (%s samples, %d px) at %s", info.name, counts, info.image_size_px, url)
        log.info("train with data.url=%s%s; stop with Ctrl-C", url, " data.token=..." if settings.token else "")
        if settings.token and settings.tls is None:
            log.info("without TLS the token can be read on the network; set tls.certificate and tls.key")

    serve(
        with_template(with_remote(plain(config.data.path), remote), config.caption_template),
        host=config.host,
        port=config.port,
        settings=settings,
        processes=config.processes,
        ready=announce,
    )


@functools.wraps(_serve)
def main() -> None:
    """Serve, or show the status of servers."""
    arguments = sys.argv[1:]
    if "--status" not in arguments:
        _serve()
        return
    try:
        sys.exit(status.main(arguments))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
