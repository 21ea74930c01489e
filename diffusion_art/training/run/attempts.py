"""A run that its launcher starts again: whether it is that, and what all processes of one attempt have in common.

Each machine's torchrun counts the restarts that it began itself, and not those that another one's failure began. So its
TORCHELASTIC_RESTART_COUNT differs between the processes of one attempt; also, attempts that were refused count. The
store of the launchers can be relied on: it outlives attempts, and what dead processes wrote is still in it.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed import Store, TCPStore  # pyright: ignore[reportPrivateImportUsage] -- documented there

COUNTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")  # what launchers say where there is no store


def launchers_store() -> Store | None:
    """That of the torchrun that started this process, if one did and lends it."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def _counted(name: str) -> bool:
    """Whether a launcher counts restarts in this variable."""
    return os.environ.get(name, "0") not in ("", "0")


@contextmanager
def beginning() -> Iterator[bool]:
    """A block that looks for what the run begins from; it is given whether the run began before, and was started again.
    A block that raises has not begun.
    """
    store, key = launchers_store(), f"begun/{os.environ.get('RANK')}"
    if store is None:
        yield any(map(_counted, COUNTS))
        return
    yield _counted("SLURM_RESTART_COUNT") or store.check([key])
    store.set(key, "")


def agreed(store: Store, *, rank: int, world_size: int) -> str:
    """A word that all living processes of a group get and none before them had. Each asks in a name of its own; the
    first process answers until all have thanked it.
    """
    name = uuid.uuid4().hex
    if rank != 0:
        store.set(f"asks/{rank}", name)
        word = store.get(f"answer/{name}").decode()
        store.set(f"thanks/{word}/{rank}", "")
        return word
    waiting = set(range(1, world_size))
    while waiting:
        for other in [other for other in waiting if store.check([f"asks/{other}"])]:
            store.set(f"answer/{store.get(f'asks/{other}').decode()}", name)
            if store.check([f"thanks/{name}/{other}"]):
                waiting.remove(other)
        time.sleep(0.02)
    return name
