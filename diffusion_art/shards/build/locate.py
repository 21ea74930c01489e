"""The shards of a run, which find or build themselves: `Shards`.

Its `path` is a folder of shards, or their address at a store (s3://...), something to build them from, or a list of
these to mix.

Shards of a collection are built into `<data_dir>/<name>-<size>px-<digest>`, the digest being that of the collection
(names, sizes and times of its files) and of all settings but the caption template: a picture more, another
`data.fit` or a second collection of that name has a folder of its own. Beside them `.found/` remembers where the shards
of what lay at a path went, so that an unchanged collection is not looked through again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_art.captions.captioner import OWN
from diffusion_art.errors import UserError
from diffusion_art.shards.build.build import build_shards, check_settings, identity_of, unfinished
from diffusion_art.shards.build.encode import key_of
from diffusion_art.shards.build.out_folder import differences, digest_of, of_older_rules
from diffusion_art.shards.leaks import refuse_leaks
from diffusion_art.shards.manifest import MANIFEST_FILE, Manifest, has_manifest
from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.places import Address, Component, Place, RemoteSettings, ShardSpec, with_remote
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sources.base import Source, pictures_of
from diffusion_art.sources.detect import open_source
from diffusion_art.sources.paths.listing import changed_since, fingerprint

_PROOF = 8  # pictures of a collection that its shards must hold, where their manifest cannot tell
# What earlier versions told otherwise, or not: of the files of a folder, of tars, and of pictures beside parquet. The
# first of each is something that they certainly did.
_TOLD_OTHERWISE = (
    ("source.version", "source.files", "source.pictures"),
    ("source.version", "source.times"),
    ("source.beside",),
    ("source.elsewhere",),
    ("source.classes",),
)
# What they did not tell of a collection, in the digest behind a folder's name.
_UNTOLD = (("version", "times"), ("beside",), ("elsewhere",), ("classes",))

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shards:
    """Shards at `path`, built when they are first asked for from what lies there, or from `source`. `ready` gives them.

    What is built from a collection goes into a folder of its own in `data_dir`. `caption_template` is how captions are
    made of the columns, None for the source's own or those of the shards; `build` holds settings of `build_shards`,
    `remote` says how an address is read. `source` opens a source, which may take a look at each of its
    files, or a download; its class is its `kind` (`config.Described`), and says by `opens_at_once` that this costs
    nothing. `key` is what gives the path, for messages.
    """

    path: str | Path | list[Any] | None
    data_dir: str | Path
    image_size_px: int
    source: Callable[[], Source] | None = None
    caption_template: str | None = None
    build: Mapping[str, Any] = field(default_factory=dict)
    remote: RemoteSettings = field(default_factory=RemoteSettings)
    key: str = "data.path"

    def ready(self) -> ShardSpec:
        """The folder of shards, found or built; where `path` is a list to mix, each of its entries in that way.

        Where they were built with other captions than `caption_template` asks for, they are told to make these.

        Raises:
            UserError: there is nothing at a path and no source to make it from, or the entries of a list cannot be
                mixed: their picture sizes differ, or one has training pictures that another keeps for validation.
        """
        if self.path is None:
            raise UserError(
                "there is no data: give data.path=FOLDER, or a server that has them, data.url=ws://host:8000/ws."
            )
        wanted = with_remote(self.path, self.remote)
        if isinstance(self.path, str | Path):
            return [self._located(wanted[0])]
        alone = replace(self, source=None)  # a source makes one folder, so it cannot stand in for a list
        found = [alone._located(component) for component in wanted]
        refuse_leaks(open_shards(found))
        return found

    def are_built(self) -> bool:
        """Whether `ready` has nothing to build."""
        if self.path is None:
            return True
        return all(self._is_built(component.path) for component in with_remote(self.path, self.remote))

    def _is_built(self, path: Place) -> bool:
        if isinstance(path, Address) or self._taken_as_they_are(path):
            return True
        settings = {"image_size_px": self.image_size_px, **self.build}
        if self._is_collection(path):
            source = open_source(path)
            return _placed(source, _folder_of(source, Path(self.data_dir), settings), settings, raw=path)[1]
        return self.source is None or _placed(self.source(), path, settings, raw=None)[1]

    def _is_collection(self, path: Path) -> bool:
        """Whether what lies there are pictures to make shards of."""
        return path.exists() and not has_manifest(path) and not (self.source and unfinished(path))

    def lie_elsewhere(self) -> bool:
        """Whether there is a source that paints, and `path` holds other pictures than it makes: a collection, or
        finished shards of another source. Those are read, and the source is not asked.

        Raises:
            UserError: shards at an address cannot be read.
        """
        if self.path is None or not self._opens_at_once:
            return False
        return not all(self._of_source(component.path) for component in with_remote(self.path, self.remote))

    def _of_source(self, path: Place) -> bool:
        """Whether what lies there was made by the source, or is still to be made by it."""
        if isinstance(path, Address):
            return self._made(ShardSet.open(path).manifest)
        if has_manifest(path):
            return self._made(Manifest.load(path))
        return not path.exists() or unfinished(path)

    def _made(self, manifest: Manifest) -> bool:
        """Whether the shards are of a source of that kind, with whatever settings."""
        assert self.source is not None
        stored, known = manifest.noted("settings").get("source"), self.source().describe()
        if not isinstance(stored, dict):
            return False
        return stored.get("kind") == known.get("kind") and not known.keys().isdisjoint(stored)

    def are_squares(self) -> bool:
        """Whether that is known without building or reading any: they are made with settings that crop to squares."""
        if self.build.get("bucket_step_px") or not isinstance(self.path, str | Path):
            return False
        path = with_remote(self.path, self.remote)[0].path
        return not isinstance(path, Address) and not self._taken_as_they_are(path)

    def _located(self, wanted: Component) -> Component:
        """The folder of shards for `wanted`, and the template to tell its captions by, None for what is stored."""
        path = wanted.path
        template = wanted.caption_template if wanted.caption_template is not None else self.caption_template
        if isinstance(path, Address):
            return Component(path, wanted.weight, template)
        settings = {"image_size_px": self.image_size_px, **self.build}
        check_settings(settings)
        if self._taken_as_they_are(path):
            _tell_of_older_rules(path, None)
            return Component(path, wanted.weight, template)
        if self._is_collection(path):
            folder, own = _of_collection(path, Path(self.data_dir), settings, template)
            _tell_of_older_rules(folder, f"`rm -r {shlex.quote(str(folder))}`, and the same command again")
        elif self.source is None:
            raise UserError(
                f"there is no data at {self.key}={path}. Give a folder of shards, of parquet files in WikiArt's "
                "layout, of WebDataset tars or of pictures; or the address of a server that has them: "
                "data.url=ws://host:8000/ws."
            )
        else:
            source = self.source()
            folder, own = _found_or_built(source, path, settings, template), source.caption_template
        return Component(folder, wanted.weight, template if template is not None else _unless_stored(folder, own))

    def _taken_as_they_are(self, path: Path) -> bool:
        """Whether `path` holds finished shards that are not checked against the settings of a source: there is none,
        that would cost too much, or they are another's.
        """
        if not has_manifest(path):
            return False
        return not self._opens_at_once or not self._made(Manifest.load(path))

    @property
    def _opens_at_once(self) -> bool:
        """Whether there is a source, and it looks at nothing when it is made."""
        return bool(getattr(getattr(self.source, "kind", None), "opens_at_once", False))


def _unless_stored(folder: Path, own: str | None) -> str | None:
    """The template of the source itself, where the shards were built with another."""
    return None if Manifest.load(folder).caption_template == own else own or OWN


def _tell_of_older_rules(folder: Path, way: str | None) -> None:
    if line := of_older_rules(folder, way):
        _say_once(line)


@cache
def _say_once(line: str) -> None:
    log.info("%s", line)


# ---------------------------------------------------------------------- collections that are no shards


def _of_collection(
    path: Path, data_dir: Path, settings: dict[str, Any], template: str | None
) -> tuple[Path, str | None]:
    """The shards of what lies at `path`, and the template that its source has."""
    if not path.is_dir():  # a table: its pictures, and the texts beside them, lie elsewhere
        source = open_source(path)
        folder = _found_or_built(source, _folder_of(source, data_dir, settings), settings, template, raw=path)
        return folder, source.caption_template
    now = fingerprint(path)
    note = data_dir / ".found" / f"{_digest([str(path.resolve()), settings])}.json"
    before = None
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text())
        before = data_dir / known["folder"]
        if known["fingerprint"] == now and (before / MANIFEST_FILE).is_file():
            return before, known["caption_template"]
    source = open_source(path)
    folder = _found_or_built(source, _folder_of(source, data_dir, settings), settings, template, raw=path)
    if before not in (None, folder):
        log.info("%s has changed: its shards are in %s now; %s holds it as it was", path, folder, before)
    with suppress(OSError):  # a disk that is full, or not ours
        note.parent.mkdir(exist_ok=True)
        content = {"fingerprint": now, "folder": folder.name, "caption_template": source.caption_template}
        note.write_text(json.dumps(content))
    return folder, source.caption_template


def _folder_of(source: Source, data_dir: Path, settings: Mapping[str, Any]) -> Path:
    """Where a collection's shards belong, but for the digest behind its name."""
    return data_dir / f"{source.name}-{settings['image_size_px']}px"


def _found_or_built(
    source: Source, plain: Path, settings: dict[str, Any], template: str | None, *, raw: Path | None = None
) -> Path:
    """The folder of `_placed`, whose build is made where it is not finished."""
    out, built = _placed(source, plain, settings, raw=raw)
    if built:
        return out
    if out != plain and (plain / MANIFEST_FILE).is_file():
        log.info("%s is another build of that name, so these shards go to %s", plain, out)
    older = _named(plain, _without(identity_of(source, settings), ("copies",)))
    if older != out and has_manifest(older):
        log.info(
            "%s holds them with their copies and masks, as an earlier version read them; runs on it go on with %s",
            older,
            f"data.path={shlex.quote(str(older))}",
        )
    build_shards(source, out, caption_template=template, **settings)
    return out


def _placed(source: Source, plain: Path, settings: dict[str, Any], *, raw: Path | None) -> tuple[Path, bool]:
    """`plain` where it holds just this build, or is free and `raw` None; else a folder that has its digest behind.
    And whether the build is finished there.
    """
    identity = identity_of(source, settings)
    named = _named(plain, identity)
    for folder in dict.fromkeys((plain, named, *(_named(plain, _without(identity, names)) for names in _UNTOLD))):
        if _holds(folder, identity) or (raw and _held_before(folder, identity, source, raw)):
            return folder, True
    return (plain if raw is None and (not plain.exists() or unfinished(plain)) else named), False


def _holds(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a finished build of the same pictures is there, whatever its captions are made by."""
    return not any(_differing(folder, identity))


def _differing(folder: Path, identity: Mapping[str, Any]) -> list[str]:
    """The settings in which the shards at `folder` differ, "manifest" where there are none."""
    if not (folder / MANIFEST_FILE).is_file():
        return ["manifest"]
    built = Manifest.load(folder).extra.get("settings")
    if not isinstance(built, dict):
        return ["settings"]
    stored = {name: value for name, value in built.items() if name != "caption_template"}
    return [name for name, _, _ in differences(stored, dict(identity))]


def _named(plain: Path, identity: Mapping[str, Any]) -> Path:
    return plain.with_name(f"{plain.name}-{digest_of(dict(identity))}")


def _without(identity: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """What an earlier version, which did not know these of its source, called the same."""
    source = {name: value for name, value in identity["source"].items() if name not in names}
    return {**identity, "source": source}


def _held_before(folder: Path, identity: Mapping[str, Any], source: Source, raw: Path) -> bool:
    """Whether these are shards of an earlier version, which told the files of a source otherwise: nothing has changed
    since they were built, and they hold the first pictures.
    """
    differing = set(_differing(folder, identity))
    if not any(told[0] in differing and differing <= {*told} for told in _TOLD_OTHERWISE):
        return False
    if changed_since(raw, (folder / MANIFEST_FILE).stat().st_mtime_ns):
        return False
    shards = ShardSet.open(folder)
    keys = np.concatenate([shards.keys(split) for split in shards.splits])
    first = [int(key_of(picture.identity), 16) for picture in islice(pictures_of(source), _PROOF)]
    return bool(np.isin(np.array(first, np.uint64), keys).all())


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
