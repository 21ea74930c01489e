"""Bytes of files below an address, by range, through fsspec; what may pass is tried again."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.extras import install_command
from diffusion_art.shards.places import Address
from diffusion_art.shards.remote.counts import count
from diffusion_art.shards.remote.faults import Passing, Short, understood

_LONGEST_DELAY_S = 5.0
_SHORT_TRIES = 4  # an answer that is short so often is no accident
_WHOLE_AT_ONCE = 2  # files that a server without ranges sends, each held in memory
_EXTRA = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}

log = logging.getLogger(__name__)


class Objects:
    """The files below `address`. Thread-safe; not for a forked child of the process that made it.

    `ranged` is whether the server gives ranges, once `look_for_ranges` has asked; else each answer is a whole file.

    UserError where no file system of fsspec reads such addresses, or one that does is not installed.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.ranged = True
        self._fs, self._root = _opened(address)
        self._options = {} if getattr(self._fs, "async_impl", False) else {"cache_type": "none"}
        self._whole = threading.Semaphore(_WHOLE_AT_ONCE)
        self._stopped = threading.Event()
        if register := getattr(threading, "_register_atexit", None):  # else the end of a program waits for retries
            register(_stopper(self))

    def whole(self, file: str, *, retry_for_s: float) -> bytes:
        """A small file of unknown size. UserError as from `read`."""
        return bytes(self._patiently(file, lambda: self._ask(file, None, None), retry_for_s))

    def look_for_ranges(self, file: str, size: int) -> None:
        """Ask for one byte of a small file of `size` bytes, and see whether that is what comes."""
        if size > 1:
            self.ranged = self.read(file, 0, 1, size=size)[1].nbytes == 1

    def read(self, file: str, start: int, stop: int, *, size: int) -> tuple[int, memoryview]:
        """Where the bytes begin that came, and they: [start, stop) of a file of `size`, or all of it.

        UserError when the file is not there, not ours to read, shorter or longer than `size`, or when nothing comes for
        as long as the settings say.
        """

        def ask() -> tuple[int, memoryview]:
            data = self._ask(file, start, stop)
            if len(data) == stop - start:
                return start, data
            if len(data) == size:
                return 0, data
            if len(data) < stop - start:
                raise Short(f"{len(data)} bytes came of {stop - start}")
            raise UserError(f"{self.address / file} has {len(data)} bytes, its manifest.json says {size}")

        if self.ranged:
            return self._patiently(file, ask, self.address.settings.retry_for_s)
        with self._whole:
            return self._patiently(file, ask, self.address.settings.retry_for_s)

    def stop(self) -> None:
        """Ask for nothing from now on: what waits for its turn would hold up the end of the program."""
        self._stopped.set()

    def _ask(self, file: str, start: int | None, stop: int | None) -> memoryview:
        count("requests")
        data = memoryview(self._fs.cat_file(f"{self._root}/{file}", start=start, end=stop, **self._options))
        count("bytes", data.nbytes)
        return data

    def _patiently(self, file: str, ask: Callable[[], Any], retry_for_s: float) -> Any:
        began, tries = time.monotonic(), 0
        while True:
            if self._stopped.is_set():
                raise UserError(f"{self.address / file} is not read: the program is ending")
            tries += 1
            try:
                return ask()
            except UserError:
                raise
            except Passing as error:
                fault: UserError | Passing = error
            except Exception as error:  # each file system has its own
                fault = understood(error, self.address, file)
            if isinstance(fault, UserError):
                raise fault from None
            self._wait(file, fault, tries, time.monotonic() - began, retry_for_s)

    def _wait(self, file: str, fault: Passing, tries: int, waited_s: float, retry_for_s: float) -> None:
        """Until the next try. UserError where there is none."""
        where = self.address / file
        if isinstance(fault, Short) and tries >= _SHORT_TRIES:
            raise UserError(
                f"{where} is cut: {fault}, {tries} times; upload the folder again, or look at its server"
            ) from None
        if waited_s >= retry_for_s or self._stopped.is_set():
            raise UserError(
                f"{where} cannot be read ({fault}; {tries} tries in {waited_s:.0f} s); see whether its server is up, "
                "and start again: a run goes on from its last checkpoint"
            ) from None
        count("retries")
        log.warning("reading %s failed (%s), trying again (%d)", where, fault, tries)
        delay_s = min(_LONGEST_DELAY_S, 0.1 * 2 ** min(tries, 10)) * random.SystemRandom().uniform(0.5, 1.0)
        self._stopped.wait(min(delay_s, max(0.01, retry_for_s - waited_s)))


def _stopper(objects: Objects) -> Callable[[], None]:
    """Stops `objects` if they are still there."""
    found = weakref.ref(objects)

    def stop() -> None:
        if (there := found()) is not None:
            there.stop()

    return stop


def _opened(address: Address) -> tuple[Any, str]:
    """The file system of `address`, and what it calls the folder."""
    import fsspec  # here and not above: it takes a tenth of a second, which local folders do not need
    from fsspec.core import url_to_fs

    scheme = address.scheme
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise UserError(f"{address} needs {_needed(scheme, str(error))}") from None
    except ValueError:
        known = "s3, gs, hf, http, https"
        raise UserError(f"{address} is no address that can be read: {scheme} is not {known} or one of fsspec") from None
    try:
        fs, root = url_to_fs(address.url, skip_instance_cache=True, **_patience(address))
    except (ImportError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{address} cannot be opened: {' '.join(str(error).split())}") from None
    if hasattr(fs, "retries"):
        fs.retries = 1  # we try again ourselves, and count
    return fs, root.rstrip("/")


def _needed(scheme: str, complaint: str) -> str:
    """The library that reads `scheme`, and how to install it; fsspec's `complaint` names those that we do not know."""
    if scheme in _EXTRA:
        return f"{_EXTRA[scheme]}, which is not installed: {install_command('remote')}"
    if named := re.search(r"[Ii]nstall (?:the )?['\"]?([\w.-]+)", complaint):
        return f"{named[1]}, which is not installed: python -m pip install {named[1]}"
    return f"what is not installed: {complaint}"


def _patience(address: Address) -> dict[str, Any]:
    """Options that give up an answer that stops coming, beside what fsspec's own settings say."""
    from fsspec.config import conf

    own: dict[str, Any] = conf.get(address.scheme) or {}
    wait_s, many = address.settings.timeout_s, address.settings.connections
    if "::" in address.url:
        return {}
    if address.scheme in ("http", "https"):
        import aiohttp

        own = conf.get("http") or own
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=wait_s, sock_read=wait_s)
        client = {"trust_env": True, "timeout": timeout, **own.get("client_kwargs", {})}
        headers = {"Accept-Encoding": "identity", **own.get("headers", {})}  # ranges are of the file, not of its gzip
        return {**own, "client_kwargs": client, "headers": headers}
    if address.scheme in ("s3", "s3a"):
        own = conf.get("s3") or own
        patience = {"connect_timeout": wait_s, "read_timeout": wait_s, "max_pool_connections": max(10, many)}
        # rclone's server sends the checksum of the whole object with a part of it. What counts is manifest.json's: of
        # whole files, and of a shard once its last part has come
        ours = {**patience, "retries": {"max_attempts": 1}, "response_checksum_validation": "when_required"}
        return {"config_kwargs": {**ours, **own.get("config_kwargs", {})}}
    return {}
