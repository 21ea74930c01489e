"""Parquet data sets on the Hugging Face hub; `Artificio/WikiArt` (103,250 paintings, 1.7 GB) by default.

Files land in the hub's own cache, so a second build downloads nothing, and a machine whose cache was filled
before (`hf download Artificio/WikiArt --repo-type dataset`) needs no network at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.sources.parquet.parquet import Parquet

WIKIART = "Artificio/WikiArt"
WIKIART_PICTURES = 103_250
JPEG_BYTES = 1_711_766_693 / WIKIART_PICTURES  # of a picture as the hub has it


class WikiArt(Parquet):
    """Source: the parquet files of a hub data set; those at `path` when it is given, else downloaded.

    Raises:
        UserError: the hub cannot be reached and nothing is cached; the message names the three ways out.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        repo_id: str = WIKIART,
        revision: str | None = None,
        name: str | None = None,
        image_column: str | None = None,
        caption_template: str | None = None,
    ) -> None:
        super().__init__(
            Path(path) if path is not None else download(repo_id, revision=revision),
            name=name or name_of(repo_id),
            image_column=image_column,
            caption_template=caption_template,
        )

    def describe(self) -> dict[str, Any]:
        """By the files alone: a local copy and the hub's make the same shards."""
        files = [[file.rpartition("/")[2], *facts] for file, *facts in super().describe()["files"]]
        return super().describe() | {"files": files}


def name_of(repo_id: str) -> str:
    """The name of a hub data set as shards have it."""
    return repo_id.rpartition("/")[2].lower()


def cache_folder() -> Path:
    """Where the hub's library keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def download(repo_id: str, *, revision: str | None = None, endpoint: str | None = None) -> Path:
    """The local folder with a data set's parquet files, from the cache or from the hub."""
    import huggingface_hub as hub  # here: it takes half a second, and other sources do without

    with _explained(repo_id):
        folder = hub.snapshot_download(
            repo_id, repo_type="dataset", revision=revision, allow_patterns="*.parquet", endpoint=endpoint
        )
    return Path(folder)


def cached(repo_id: str, *, revision: str | None = None) -> bool:
    """Whether a data set's parquet files are in the hub's cache, as far as that can tell without the hub."""
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = hub.snapshot_download(
            repo_id, repo_type="dataset", revision=revision, allow_patterns="*.parquet", local_files_only=True
        )
    except LocalEntryNotFoundError:
        return False
    return any(Path(folder).rglob("*.parquet"))


def hub_bytes(repo_id: str, *, revision: str | None = None, endpoint: str | None = None) -> int:
    """The size of a data set's parquet files, as the hub tells it. UserError as from `download`."""
    import huggingface_hub as hub

    with _explained(repo_id):
        info = hub.HfApi(endpoint=endpoint).dataset_info(repo_id, revision=revision, files_metadata=True)
    return sum(file.size or 0 for file in info.siblings or () if file.rfilename.endswith(".parquet"))


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """What the hub's library raises, as a UserError."""
    from huggingface_hub.errors import (
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # the hub has httpx or httpx2
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no public data set `{repo_id}`. Check source.repo_id, or `hf auth login`."
        ) from error
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(how_to_get(repo_id, reason)) from error


def how_to_get(repo_id: str, reason: str) -> str:
    """The error of a machine without the data: what failed, and the three ways to get it."""
    which = "" if repo_id == WIKIART else f" source.repo_id={repo_id}"
    prepare = f"python -m diffusion_art.prepare source=wikiart{which}"
    return (
        f"{repo_id} is not on this machine and the Hugging Face hub cannot be reached ({reason}). "
        f"Three ways to get it: (1) prepare a copy of its parquet files, `{prepare} source.path=FOLDER`; "
        f"(2) prepare on a machine that reaches the hub, `{prepare}`, and copy the shard folder here; "
        "(3) train from a server that has the shards, `data.url=ws://HOST:8000/ws`."
    )
