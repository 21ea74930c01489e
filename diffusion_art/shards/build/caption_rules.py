"""By which rules the captions in shards were read: of those that older rules left without some it is said how to read
them anew, for shards that are finished are not built again.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from diffusion_art.shards.manifest import Manifest
from diffusion_art.units import counted

CAPTION_RULES = 2  # raise it when more is read as captions (captions/, sources/); shards without the number have 0
KEY = "caption_rules"  # of the manifest's `extra`

_LACKING = (
    ("without_caption", "has none", "have none"),
    ("folder_as_caption", "has its folder's name", "have their folder's name"),
)
_COLLECTIONS = ("folder", "table", "webdataset", "parquet")


def of_older_rules(folder: Path, way: str | None = None) -> str:
    """What to say of the finished shards at `folder`: "" unless older rules read the captions of a collection there,
    and found none for some pictures, or names of folders. `way` says what to type; None is for shards whose collection
    nobody named.
    """
    manifest = Manifest.load(folder)
    counts, settings = manifest.extra.get("counts"), manifest.extra.get("settings")
    counts, settings = (found if isinstance(found, dict) else {} for found in (counts, settings))
    source = settings.get("source")
    if not isinstance(source, dict) or source.get("kind") not in _COLLECTIONS or manifest.caption_template == "":
        return ""
    lacking = [
        f"{counted(count)} {one if count == 1 else more}"
        for name, one, more in _LACKING
        if isinstance(count := counts.get(name), int) and count
    ]
    rules = manifest.extra.get(KEY, 0)
    if not lacking or not isinstance(rules, int) or rules >= CAPTION_RULES:
        return ""
    prepare = ["python", "-m", "diffusion_art.prepare", "source=any", "source.path=COLLECTION", f"out={folder}"]
    command = shlex.join([*prepare, f"image_size_px={manifest.image_size_px}", "overwrite=true"])
    return (
        f"{folder}: its captions were read by older rules, and {' and '.join(lacking)}. More is read as captions now; "
        f"to read these anew: {way or f'`{command}`'}"
    )
