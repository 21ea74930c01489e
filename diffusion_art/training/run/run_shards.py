"""The `data` node of a run, taken apart: the shards that it describes, and what the data module takes.

One node holds both, so that `data.path`, `data.fit` and `data.url` stand beside each other on a command line and in the
configs of runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_art.config import Described
from diffusion_art.shards.build.locate import Shards
from diffusion_art.shards.places import RemoteSettings

SHARED = ("image_size_px", "caption_template")  # keys that both take
HOW = ("fit", "jpeg_quality", "val_fraction")  # to build, beside `data.build`
OWN = ("path", "source", "build", "remote", *HOW)  # keys that are the shards' alone


def shards_of(data: Mapping[str, Any], data_dir: str | Path) -> Shards:
    """The shards at `data.path`, or those that `data.source` makes."""
    settings = {key: data[key] for key in ("path", *SHARED) if key in data}
    return Shards(
        **settings,
        data_dir=data_dir,
        source=Described.of(data.get("source")),
        build={key: data[key] for key in HOW if key in data} | (data.get("build") or {}),
        remote=RemoteSettings.of(data.get("remote")),
    )


def without_shards(data: Mapping[str, Any]) -> dict[str, Any]:
    """The node of the data module."""
    return {key: value for key, value in data.items() if key not in OWN}
