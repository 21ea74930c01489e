"""Which kind of source a path is, by what holds pictures there."""

from __future__ import annotations

import re
from pathlib import Path

from diffusion_art.errors import UserError
from diffusion_art.sources.base import Source
from diffusion_art.sources.folder.folder import ImageFolder
from diffusion_art.sources.folder.records import Records
from diffusion_art.sources.parquet.parquet import Parquet
from diffusion_art.sources.paths.listing import (
    JSON_SUFFIXES,
    LINES_SUFFIXES,
    TABLE_SUFFIXES,
    TAR_SUFFIX,
    Listing,
    list_files,
    stem_of,
    why_unread,
)
from diffusion_art.sources.tables.parquet_file import holds_pictures, layout_in, open_parquet
from diffusion_art.sources.tars.tars import Tars

BUILDING_FOLDER = ".building"  # inside a shard folder while it is being built

_IN_TEXT = re.compile(rb"[\t,|;:\"' ](?:data:image/[\w.+-]+;base64,|(?:/9j/|iVBORw0KGgo|R0lGODlh|UklGR)[\w+/]{40})")
_LOOKED_AT_BYTES = 2**16
_KNOWN = (
    "parquet files, WebDataset tars, pictures (.jpg .png ... with .txt, metadata.jsonl or another table beside), or a "
    "table that names pictures (.csv .tsv .json .jsonl)"
)


def open_source(path: str | Path, *, name: str | None = None, caption_template: str | None = None) -> Source:
    """The source at `path`: parquet files where one has images, else tars, else pictures, each at any depth.

    Raises:
        UserError: there is nothing, or nothing of a known kind.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no {path}. Give a file or folder with {_KNOWN}.")
    if path.is_file():
        return _open_file(path, name=name, caption_template=caption_template)
    if (path / BUILDING_FOLDER).exists():
        raise UserError(f"{path} is an unfinished build of shards. Run the command that builds it again.")
    listing = list_files(path)
    kind = _kind(listing)
    if kind is None:
        _refuse_base64([path / file for file in listing.having(TABLE_SUFFIXES)])
        why = f" ({path.suffix}: {reason})" if (reason := why_unread(path.suffix.lower())) else listing.told()
        raise UserError(f"{path} holds nothing to learn from{why}. Give a file or folder with {_KNOWN}.")
    return kind(path, name=name, caption_template=caption_template, listing=listing)


def _open_file(path: Path, *, name: str | None, caption_template: str | None) -> Source:
    suffix = path.suffix.lower()
    if suffix == ".parquet" and not _has_images(path):
        return Records(path, name=name, caption_template=caption_template)
    kinds = {".parquet": Parquet, TAR_SUFFIX: Tars, **dict.fromkeys(TABLE_SUFFIXES - {".parquet"} | {".txt"}, Records)}
    if suffix not in kinds:
        why = f" ({suffix}: {reason})" if (reason := why_unread(suffix)) else ""
        raise UserError(
            f"{path} is no .parquet or .tar file, and no table of pictures{why}. Give a file or folder with {_KNOWN}."
        )
    if suffix in TABLE_SUFFIXES:
        _refuse_base64([path])
    return kinds[suffix](path, name=name, caption_template=caption_template)


def _refuse_base64(tables: list[Path]) -> None:
    """UserError where one of the first tables has its pictures in it."""
    found = next((file for file in tables[:8] if file.suffix.lower() != ".parquet" and holds_base64(file)), None)
    if found is None:
        return
    lines = found.suffix.lower() in LINES_SUFFIXES | JSON_SUFFIXES
    read = f"read_json({found.name!r}, lines=True)" if lines else f"read_csv({found.name!r}, sep={_mark(found)})"
    raise UserError(
        f"{found} has its pictures in it, in base64, which are not read from text. Make parquet of it, from which they "
        f"are: pandas.{read}.to_parquet({found.stem + '.parquet'!r})"
    )


def holds_base64(file: Path) -> bool:
    """Whether a table that is text has pictures in base64, as far as its first rows show it."""
    try:
        with file.open("rb") as opened:
            return _IN_TEXT.search(opened.read(_LOOKED_AT_BYTES)) is not None
    except OSError:
        return False


def _mark(table: Path) -> str:
    return r"'\t'" if table.suffix.lower() in (".tsv", ".txt") else "','"


def _kind(listing: Listing) -> type[Parquet] | type[Tars] | type[ImageFolder] | None:
    others = bool(listing.pictures() or listing.having({TAR_SUFFIX}))
    if any(_has_images(listing.root / file, look=others) for file in _own_parquet_files(listing)):
        return Parquet
    if listing.having({TAR_SUFFIX}):
        return Tars
    if listing.pictures():
        return ImageFolder
    return Parquet if listing.having({".parquet"}) else None  # its message names the columns


def _own_parquet_files(listing: Listing) -> list[str]:
    """Parquet files but those that img2dataset keeps beside a tar or a folder of the same name."""
    found = listing.having({".parquet"})
    if not found:
        return []
    stems = {stem_of(file) for file in listing.having({TAR_SUFFIX})}
    stems |= {file[: max(file.rfind("/"), 0)] for file in listing.files}
    return [file for file in found if stem_of(file) not in stems]


def _has_images(file: Path, *, look: bool = False) -> bool:
    """Whether the rows of a parquet file hold pictures, and not embeddings, by the types of its columns; with `look`
    also by the first rows.
    """
    try:
        layout = layout_in(open_parquet(str(file)), None, in_text=not look)  # small ones may lie in a table of pictures
        return layout is not None and (not look or holds_pictures(str(file), layout.image))
    except UserError:  # broken, which matters only where nothing else holds pictures
        return False
