"""Where things are kept between runs that can be made again."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "DIFFUSION_ART_CACHE"


def cache_folder(kind: str) -> Path:
    """This user's own folder for one kind of them: in $DIFFUSION_ART_CACHE, else $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get(CACHE_VARIABLE) or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "diffusion-art")
    return Path(base).expanduser() / kind


def check_ours(folder: Path) -> None:
    """RuntimeError where others may put machine code into the folder."""
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise RuntimeError(f"others can write to {folder}, and what lies there is run: chmod 700 {folder}")
