"""Which versions of what are installed."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version

from diffusion_art.diagnosis.finding import Finding
from diffusion_art.extras import install_command, missing
from diffusion_art.training.run.provenance import commit

TOLD = ("torch", "torchvision", "lightning", "diffusers", "open_clip_torch", "hydra-core", "numpy", "pillow")


def versions() -> list[Finding]:
    """Python and the libraries whose versions a bug report needs; then what the project needs and is not there."""
    system = f"{platform.system()} {platform.release()}, {platform.machine()}, {' '.join(platform.libc_ver())}".strip(
        ", "
    )
    ours = f"{_version('diffusion-art') or 'not installed'}, commit {commit() or 'unknown'}"
    told = [Finding("diffusion_art", ours), Finding("python", f"{platform.python_version()} on {system}")]
    told += [Finding(name, found) for name in TOLD if (found := _version(name))]
    return [*told, *_missing()]


def _missing() -> list[Finding]:
    wanted = [word for word in requires_of("diffusion-art") if "extra ==" not in word]
    names = [re.split(r"[<>=~!;\[ ]", word)[0] for word in wanted]
    found = [
        Finding(name, "not installed", "impossible", f"python -m pip install {name}")
        for name in names
        if _version(name) is None
    ]
    train = install_command("train")
    return found + [Finding(name, "not installed", "impossible", train) for name in missing("train")]


def requires_of(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
