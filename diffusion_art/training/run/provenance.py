"""Where a checkpoint comes from: versions of what made it and the commit it was made at."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import diffusion_art

LIBRARIES = ("torch", "lightning", "diffusers", "open_clip_torch", "hydra-core")


def commit() -> str:
    """Short git commit of the checkout this package runs from, with `+` when files differ from it; '' outside git."""
    root = Path(diffusion_art.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else ""


def provenance() -> dict[str, Any]:
    """Plain data for a checkpoint: library versions and commit."""
    versions = {"python": platform.python_version()}
    for name in ("diffusion-art", *LIBRARIES):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "commit": commit()}
