"""Serve shards to trainings: `python -m diffusion_art.stream data.path=data/wikiart-128px`.

The path may be an address, as s3://bucket/wikiart-128px (docs/remote.md). Trainings read the shards with
`data.url=ws://HOST:8000/ws`, also from other machines. Runs until Ctrl-C or SIGTERM, and may be started again under
running trainings: they wait, and go on as if nothing had happened.

    python -m diffusion_art.stream --status ws://HOST:8000/ws     what servers are doing, as a live table
"""

import functools
import sys

from omegaconf import DictConfig, OmegaConf

from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.errors import UserError
from diffusion_art.shards.places import RemoteSettings, with_remote, with_template
from diffusion_art.streaming import status
from diffusion_art.streaming.server.run import announcement, serve
from diffusion_art.streaming.server.settings import Settings


@command("stream")
def _serve(config: DictConfig) -> None:
    """Say what is served and where, then serve it."""
    if OmegaConf.is_missing(config.data, "path"):
        raise UserError("there is nothing to serve; name a folder of shards with data.path=data/NAME")
    asked = plain(config)
    settings, remote = Settings.of(asked), RemoteSettings.of(asked["data"]["remote"])
    serve(
        with_template(with_remote(asked["data"]["path"], remote), asked["caption_template"]),
        host=asked["host"],
        port=asked["port"],
        settings=settings,
        processes=asked["processes"],
        ready=announcement(settings),
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
