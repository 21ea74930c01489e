"""Which shards are meant and where they lie, as `data.path` says it: a folder, an address that fsspec can read, such as
s3://bucket/wikiart-128px, or a list of these with weights.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
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
            raise UserError(_secret(text, "a user or password before its host", scheme))
    if found := _QUERY.search(text):
        scheme = text[: found.start()].rpartition("://")[0]
        raise UserError(_secret(text, "a query after `?`, which may be a signature", scheme))


def without_secrets(text: str) -> str:
    """`text` with users, passwords and queries of the addresses in it left out."""
    return _QUERY.sub("?***", _USER.sub(r"\1://***@", text)) if "://" in text else text


def _secret(text: str, what: str, scheme: str) -> str:
    from diffusion_art.net import TOKEN_VARIABLE  # loads what reading shards does without

    how = (
        f"give the server's token by ${TOKEN_VARIABLE}, or by data.token"
        if re.search(r"\bwss?$", scheme, re.IGNORECASE)
        else "give it by the store's own settings (AWS_PROFILE, ~/.netrc, hf auth login, $FSSPEC_HTTP), as "
        "docs/remote.md shows"
    )
    return f"{without_secrets(text)} carries {what}, and addresses are saved with a run; leave it out and {how}"


ShardSpec: TypeAlias = "str | Path | Address | Sequence[str | Path | Mapping[str, Any] | Component]"


@dataclass(frozen=True)
class Component:
    """One folder of a specification; `weight` None: as much as it has samples.

    `caption_template` makes its captions of the samples' columns, None leaves them as they are stored.
    """

    path: Place
    weight: float | None = None
    caption_template: str | None = None


def components_of(spec: ShardSpec) -> tuple[Component, ...]:
    """`spec` in its one plain form. UserError when it is none, names a folder twice or weighs only some of them."""
    entries = [spec] if isinstance(spec, str | Path | Address) else list(spec)
    if not entries:
        raise UserError("data.path is an empty list; name at least one folder of shards, as data.path=data/NAME")
    components = tuple(_component(entry) for entry in entries)
    folders = [absolute(component.path) for component in components]
    for number, folder in enumerate(folders):
        if folder in folders[:number]:
            raise UserError(f"data.path names {folder} twice; name it once, with the sum of the weights")
    bare = [component.path for component in components if component.weight is None]
    if bare and len(bare) < len(components):
        raise UserError(
            f"data.path has weights for some folders and none for {bare[0]}; give every folder a weight, as "
            f"{{path: {bare[0]}, weight: 1}}, or none of them"
        )
    return components


def with_template(spec: ShardSpec, caption_template: str | None) -> tuple[Component, ...]:
    """`spec`, its folders with this template, but for those that have one of their own."""
    return tuple(
        replace(component, caption_template=caption_template) if component.caption_template is None else component
        for component in components_of(spec)
    )


def with_remote(spec: ShardSpec, settings: RemoteSettings) -> tuple[Component, ...]:
    """`spec`, its addresses read by these settings."""
    components = components_of(spec)
    return tuple(replace(component, path=place_of(component.path, settings)) for component in components)


def arguments_of(components: Sequence[Component]) -> list[str]:
    """`components` on a command line, their paths absolute."""
    weights = [repr(component.weight) for component in components if component.weight is not None]
    folders = [str(absolute(component.path)) for component in components]
    remote = next((c.path.settings for c in components if isinstance(c.path, Address)), None)
    copied = ["--remote", json.dumps(asdict(remote))] if remote is not None else []
    templates = [component.caption_template for component in components]
    told = ["--captions", json.dumps(templates)] if any(template is not None for template in templates) else []
    return [*folders, *(["--weights", *weights] if weights else []), *told, *copied]


def spec_of_arguments(
    folders: Sequence[str], weights: Sequence[float] | None, captions: str | None = None, remote: str | None = None
) -> ShardSpec:
    """The specification that `arguments_of` wrote. UserError when there are not as many weights as folders."""
    if weights is not None and len(weights) != len(folders):
        raise UserError(f"--weights has {len(weights)} numbers for {len(folders)} folders; give one for each")
    templates = json.loads(captions) if captions is not None else [None] * len(folders)
    shares = weights if weights is not None else [None] * len(folders)
    settings = RemoteSettings(**json.loads(remote)) if remote is not None else None
    whole = zip(folders, shares, templates, strict=True)
    return [Component(place_of(folder, settings), weight, template) for folder, weight, template in whole]


def _component(entry: Any) -> Component:
    if isinstance(entry, Component):
        entry = {"path": entry.path, "weight": entry.weight, "caption_template": entry.caption_template}
    if isinstance(entry, str | Path | Address):
        return Component(place_of(entry))
    if not isinstance(entry, Mapping) or not {"path"} <= set(entry) <= {"path", "weight", "caption_template"}:
        raise UserError(
            f"data.path has the entry {entry!r}; each is a folder, or {{path: FOLDER, weight: NUMBER}}, with a "
            "caption_template of its own if you like"
        )
    path, weight, template = entry["path"], entry.get("weight"), entry.get("caption_template")
    if not isinstance(path, str | Path | Address) or not str(path):
        raise UserError(f"data.path has the entry {entry!r}, whose path is no folder; give {{path: data/NAME, ...}}")
    if not isinstance(template, str | None):
        raise UserError(f"data.path gives {path} the caption_template {template!r}; it is a text such as '{{title}}'")
    if weight is None:
        return Component(place_of(path), None, template)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not (0 < weight < math.inf):
        raise UserError(f"data.path gives {path} the weight {weight!r}; a weight is a number above 0")
    return Component(place_of(path), float(weight), template)
