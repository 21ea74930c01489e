"""Look at this machine: `python -m diffusion_art.doctor`. What it prints is what a bug report needs.

    python -m diffusion_art.doctor format=json          # the same for programs

It takes seconds, trains nothing, and tells no paths, tokens or names. The status is 0 unless something makes training
impossible.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("paint")

import sys
from pathlib import Path

from omegaconf import DictConfig

from diffusion_art.cli import command
from diffusion_art.diagnosis.report import as_json, examine, possible, text
from diffusion_art.errors import UserError


@command("doctor")
def main(config: DictConfig) -> None:
    """Print what was found."""
    write = {"text": text, "json": as_json}.get(str(config.format))
    if write is None:
        raise UserError(f"format={config.format} is not known: choose text or json.")
    sections = examine(Path(config.paths.data_dir), Path(config.paths.log_dir))
    print(write(sections))  # noqa: T201 -- what was asked for
    if not possible(sections):
        sys.exit(1)


if __name__ == "__main__":
    main()
