"""Serve shards to trainings: `python -m diffusion_art.stream data.path=data/wikiart-128px`.

Trainings read them with `data.url=ws://HOST:8000/ws`, also from other machines. Runs until Ctrl-C or SIGTERM,
and may be started again under running trainings: they wait, and go on as if nothing had happened.
"""

import logging

from omegaconf import DictConfig, OmegaConf

from diffusion_art.cli import command
from diffusion_art.errors import UserError
from diffusion_art.streaming.server import serve
from diffusion_art.streaming.wire import StreamInfo

log = logging.getLogger(__name__)


@command("stream")
def main(config: DictConfig) -> None:
    """Say what is served and where, then serve it."""
    if OmegaConf.is_missing(config.data, "path"):
        raise UserError("there is nothing to serve; name a folder of shards with data.path=data/NAME")

    def announce(url: str, info: StreamInfo) -> None:
        counts = ", ".join(f"{samples:,} {split}" for split, samples in info.splits.items())
        log.info("serving %s (%s samples, %d px) at %s", info.name, counts, info.image_size_px, url)
        log.info("train with data.url=%s%s; stop with Ctrl-C", url, " data.token=..." if config.token else "")

    serve(config.data.path, host=config.host, port=config.port, token=config.token, ready=announce)


if __name__ == "__main__":
    main()
