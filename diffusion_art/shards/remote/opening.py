"""Open the shards at an address: by manifest, index and captions alone."""

from __future__ import annotations

import logging
from pathlib import Path

from diffusion_art.errors import UserError
from diffusion_art.files import cache_folder
from diffusion_art.shards.manifest import MANIFEST_FILE, Manifest
from diffusion_art.shards.places import Address
from diffusion_art.shards.remote.cache import Cache, data_set_name
from diffusion_art.shards.remote.copies import Copies
from diffusion_art.shards.remote.objects import Objects
from diffusion_art.shards.remote.range_store import RangeStore
from diffusion_art.shards.remote.remote_store import RemoteStore, all_fit

_OPEN_FOR_S = 15.0  # who has just started a command would rather hear that nobody answers

log = logging.getLogger(__name__)


def open_remote(address: Address) -> RemoteStore:
    """The store of the shards at `address`; none of them is read yet.

    UserError where there is no manifest, one that this version cannot read, or nobody answers.
    """
    settings, objects = address.settings, Objects(address)
    text = objects.whole(MANIFEST_FILE, retry_for_s=min(_OPEN_FOR_S, settings.retry_for_s))
    remedy = f"upload a folder that `python -m diffusion_art.prepare source=NAME out=FOLDER` built to {address}"
    manifest = Manifest.parse(text, address / MANIFEST_FILE, remedy)
    objects.look_for_ranges(MANIFEST_FILE, len(text))
    cache = Cache(Path(settings.cache).expanduser() if settings.cache else cache_folder("shards"), settings.cache_bytes)
    folder = cache.folder / data_set_name(text)
    copies = Copies(objects, cache, folder)
    for split in manifest.shards:
        for info in manifest.files(split)[len(manifest.shards[split]) :]:
            copies.bring(info)
    return _kind(address, objects, manifest)(folder, manifest, place=address, copies=copies)


def _kind(address: Address, objects: Objects, manifest: Manifest) -> type[RemoteStore]:
    """Whole shards or ranges of them, as the settings ask, or as they fit."""
    settings = address.settings
    if settings.unit == "shard" or (settings.unit == "auto" and all_fit(manifest.total_bytes, settings)):
        return RemoteStore
    if objects.ranged:
        return RangeStore
    if settings.unit == "range":
        raise UserError(f"the server of {address} gives no ranges of files; set data.remote.unit=shard")
    log.warning(
        "the server of %s gives no ranges of files, and %d bytes of shards do not fit into a cache of %d bytes: shards "
        "will be copied again and again; set data.remote.cache_bytes higher",
        address,
        manifest.total_bytes,
        settings.cache_bytes,
    )
    return RemoteStore
