"""All runs on one page, as they go on: `python -m diffusion_art.watch`.

    python -m diffusion_art.watch logs=logs/wikiart port=8051

Curves of chosen runs over each other, their grids side by side, and how their settings differ. Only reads; runs until
Ctrl-C or SIGTERM.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("serve")

import logging
from pathlib import Path

from omegaconf import DictConfig

from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.errors import UserError
from diffusion_art.net import Tls, warn_of_plain_tokens
from diffusion_art.serving.listening import AnnouncedServer, config_of, listen_at
from diffusion_art.serving.settings import Settings, check_address, hosts_of, tokens_of
from diffusion_art.units import counted
from diffusion_art.watching.app import create_app
from diffusion_art.watching.runs import Runs

log = logging.getLogger(__name__)


@command("watch")
def main(config: DictConfig) -> None:
    """Serve the page, say where."""
    asked = plain(config)
    root = Path(asked["logs"]).expanduser()
    if not root.is_dir():
        raise UserError(f"there is no folder {root} to watch. Give the folder of your runs: logs=FOLDER.")
    settings = Settings(tokens=tokens_of(asked["token"]), hosts=hosts_of(asked["hosts"]))
    check_address(asked["host"], settings)
    tls = Tls.of(asked["tls"]["certificate"], asked["tls"]["key"])
    runs = Runs(root.resolve())

    def announce(url: str) -> None:
        shown = counted(len(runs.summaries()), "run")
        log.info("%s in %s: look at %s; stop with Ctrl-C", shown, root, url)
        warn_of_plain_tokens(settings.tokens, tls)

    with listen_at(asked["host"], asked["port"]) as listener:
        server = AnnouncedServer(config_of(create_app(runs, settings), settings.limits, tls=tls), ready=announce)
        server.run(sockets=[listener])
    log.info("stopped")


if __name__ == "__main__":
    main()
