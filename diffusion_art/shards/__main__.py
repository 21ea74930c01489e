"""Look at shards: `python -m diffusion_art.shards lint|info|preview|statistics path=data/wikiart-128px`.

`info` says what a folder, or a weighted list of them, holds. `lint` reads every byte and decodes every picture, and
ends with status 1 when something would spoil a training; it also judges tars of others before `prepare` reads them.
`preview` paints a captioned contact sheet of the pictures that a run would see first. `statistics` counts the values of
columns: which styles, artists and genres there are, and how many pictures of each.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffusion_art.cli import command
from diffusion_art.config import listed, plain
from diffusion_art.errors import UserError
from diffusion_art.shards.lint.lint import lint
from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.places import RemoteSettings, with_remote
from diffusion_art.shards.telling import describe, preview, statistics, tell_info, tell_report, tell_statistics

log = logging.getLogger(__name__)

ACTIONS = ("lint", "info", "preview", "statistics")


def shards(config: DictConfig) -> None:
    """Do what `config.action` says. SystemExit with status 1 when lint finds errors."""
    settings = plain(config)
    action, spec = settings["action"], with_remote(settings["path"], RemoteSettings.of(settings["remote"]))
    if action not in ACTIONS:
        raise UserError(f"say what to do: one of {', '.join(ACTIONS)}, as in `shards info path={settings['path']}`.")
    if action == "preview":
        out = preview(spec, **{name: settings[name] for name in ("split", "count", "seed", "columns", "out")})
        log.info("written to %s", out)
        return
    if action == "info":
        found = open_shards(spec)
        content = describe(found)
        tell_info(found)
    elif action == "statistics":
        content = statistics(open_shards(spec), listed(settings["by"]))
        tell_statistics(content, top=settings["top"])
    else:
        asked = {"pictures": settings["decode_pictures"], "workers": settings["workers"]}
        report = lint(spec, **asked, progress=settings["progress"])
        content = report.plain()
        tell_report(report)
    if settings["out"] is not None:
        _write(Path(settings["out"]), content)
    if action == "lint" and content["errors"]:
        raise SystemExit(1)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8", errors="replace")
    log.info("written to %s", path)


_run = command("shards")(shards)


def main() -> None:
    """The command line: the bare word becomes `action=`."""
    sys.argv[1:] = [f"action={word}" if word in ACTIONS else word for word in sys.argv[1:]]
    _run()


if __name__ == "__main__":
    main()
