"""Where shards lie: a folder, or an address that fsspec can read, such as s3://bucket/wikiart-128px."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

from diffusion_art.errors import UserError

UNITS = ("auto", "shard", "range")

_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*(?:://[^:]*)?::)*[A-Za-z][A-Za-z0-9+.-]+://")
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#@\s]*)@")
_QUERY = re.compile(r"\?[^\s'\",}\]]*")
_NAMED_USERS = {"abfs", "abfss", "az", "hdfs", "sftp", "smb", "ssh", "wasb", "webhdfs"}  # USER@HOST tells no secret


@dataclass(frozen=True)
class RemoteSettings:
    """How shards at an address are read.

    Copies lie in the folder `cache` (None: the user's cache folder) and take at most `cache_bytes` there. `unit`: a
    whole `shard` is copied and checked by its SHA-256 before it is used; `range` copies only what is asked for; `auto`
    is `shard` where the whole data set fits into the cache. Up to `connections` ranges are read at once. What may pass
    is tried again for `retry_for_s`; an answer that stops coming is given up after `timeout_s`.

    UserError for a value out of range, or a key that is not one of these.
    """

    cache: str | None = None
    cache_bytes: int = 50 * 10**9
    unit: str = "auto"
    connections: int = 16
    retry_for_s: float = 60.0
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise UserError(f"remote.unit={self.unit!r} is not one of {', '.join(UNITS)}")
        for name, least in {"cache_bytes": 1, "connections": 1}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"remote.{name}={value!r} is out of range; give a whole number from {least}")
        for name in ("retry_for_s", "timeout_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise UserError(f"remote.{name}={value!r} is out of range; give seconds above 0")

    @classmethod
    def of(cls, node: Mapping[str, Any] | None) -> RemoteSettings:
        """Those of a config's `remote` node."""
        given = dict(node or {})
        if unknown := set(given) - {each.name for each in fields(cls)}:
            raise UserError(f"there is no remote.{min(unknown)}; there are {', '.join(f.name for f in fields(cls))}")
        return cls(**given)


@dataclass(frozen=True)
class Address:
    """A folder that is read over a network. Two addresses are equal where their URLs are."""

    url: str
    settings: RemoteSettings = field(default_factory=RemoteSettings, compare=False)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> str:
        return f"{self.url}/{name}"

    @property
    def name(self) -> str:
        return unquote(self.url.rpartition("/")[2])

    @property
    def scheme(self) -> str:
        """The protocol that is read from."""
        return self.url.partition("://")[0].rpartition("::")[2].lower()


Place: TypeAlias = Path | Address


def place_of(text: str | Path | Address, settings: RemoteSettings | None = None) -> Place:
    """The folder or address that `text` names.

    UserError for an address that carries a password, or is that of a stream server.
    """
    if isinstance(text, Address):
        return Address(text.url, settings or text.settings)
    if isinstance(text, Path) or not _ADDRESS.match(text):
        return Path(text).expanduser()
    refuse_secrets(text)
    scheme, _, rest = text.partition("://")
    if scheme.lower() in ("file", "local"):
        return Path("/" + unquote(rest).lstrip("/"))
    if scheme.lower() in ("ws", "wss"):
        raise UserError(f"{text} is a stream server, not a folder of shards; give it as data.url={text}")
    return Address(text.rstrip("/"), settings or RemoteSettings())


def absolute(place: Place) -> Path | Address:
    """The same, wherever a program that is told of it runs."""
    return place if isinstance(place, Address) else place.resolve()


def refuse_secrets(text: str) -> None:
    """UserError where an address in `text` carries a password, a key or a signature: those would be saved and shown."""
    if "://" not in text:
        return
    for scheme, user in _USER.findall(text):
        if ":" in user or scheme.lower().rpartition("::")[2] not in _NAMED_USERS:
            raise UserError(_secret(text, "a user or password before its host"))
    if _QUERY.search(text):
        raise UserError(_secret(text, "a query after `?`, which may be a signature"))


def without_secrets(text: str) -> str:
    """`text` with users, passwords and queries of the addresses in it left out."""
    return _QUERY.sub("?***", _USER.sub(r"\1://***@", text)) if "://" in text else text


def _secret(text: str, what: str) -> str:
    return (
        f"{without_secrets(text)} carries {what}, and addresses are saved with a run; leave it out and give it by the "
        "store's own settings (AWS_PROFILE, ~/.netrc, hf auth login, $FSSPEC_HTTP), as docs/remote.md shows"
    )
