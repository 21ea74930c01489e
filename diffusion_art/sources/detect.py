"""Which kind of source a path is, by looking at it."""

from __future__ import annotations

from pathlib import Path

from diffusion_art.errors import UserError
from diffusion_art.sources.base import Source
from diffusion_art.sources.folder import SUFFIXES, ImageFolder
from diffusion_art.sources.parquet import Parquet
from diffusion_art.sources.tars import Tars

BUILDING_FOLDER = ".building"  # inside a shard folder while it is being built


def open_source(path: str | Path, *, name: str | None = None, caption_template: str | None = None) -> Source:
    """The source at `path`: parquet files at any depth, tars in the folder itself, or else pictures.

    Raises:
        UserError: there is nothing, or nothing of a known kind.
    """
    path = Path(path)
    known = "parquet files, WebDataset tars, or pictures (.jpg .png ... with .txt or metadata.jsonl beside)"
    if not path.exists():
        raise UserError(f"there is no {path}. Give a file or folder with {known}.")
    if path.is_file():
        kinds = {".parquet": Parquet, ".tar": Tars}
        if path.suffix.lower() not in kinds:
            raise UserError(f"{path} is no .parquet or .tar file. Give a file or folder with {known}.")
        return kinds[path.suffix.lower()](path, name=name, caption_template=caption_template)
    if (path / BUILDING_FOLDER).exists():
        raise UserError(f"{path} is an unfinished build of shards. Run the command that builds it again.")
    if next(path.rglob("*.parquet"), None):
        return Parquet(path, name=name, caption_template=caption_template)
    if next(path.glob("*.tar"), None):
        return Tars(path, name=name, caption_template=caption_template)
    if any(file.suffix.lower() in SUFFIXES for file in path.rglob("*")):
        return ImageFolder(path, name=name, caption_template=caption_template)
    raise UserError(f"{path} holds nothing to learn from. Give a file or folder with {known}.")
