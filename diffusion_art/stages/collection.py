"""The collection that the stages start from: here already, or on a hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusion_art.config import build
from diffusion_art.errors import UserError
from diffusion_art.sources.parquet.hub import JPEG_BYTES, WIKIART, WIKIART_PICTURES, cached, hub_bytes, name_of


@dataclass(frozen=True)
class Collection:
    """Its name, how many pictures there are (None: not known yet), and the bytes to download first."""

    name: str
    pictures: int | None
    download_bytes: float


def find(source: dict[str, Any]) -> Collection:
    """That of a `source` node; nothing is downloaded. UserError where it is neither here nor on a hub that answers."""
    repo = source.get("repo_id") if source.get("path") is None else None
    if repo is not None and not cached(repo, revision=source["revision"]):
        try:
            count = hub_bytes(repo, revision=source["revision"])
        except UserError as error:
            raise UserError(f"{error} With a copy of its files give source.path=FOLDER here.") from error
        name = source.get("name") or name_of(repo)
        return Collection(name, WIKIART_PICTURES if repo == WIKIART else int(count / JPEG_BYTES), count)
    here = build(source)
    return Collection(here.name, here.count, 0)
