"""The books of the stream of protocol v1: an SQLite database that all server processes of one port share.

    stream       the next position never handed out, and when the latest client left
    returned     positions to hand out again
    held         positions sent to a client that has said nothing since
    validation   keys never to be handed out
    clients      the connections, the server process that each of them is with, and whether it has been given data

Positions are those of the endless order. What the entries are for is the business of `shared_stream.py`; nothing here
decides anything.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from diffusion_art.errors import UserError

_BUSY_S = 30.0  # how long to wait for another process's transaction, which takes microseconds
_CLOCK_MAY_MOVE_S = 5.0  # the time of a birth is counted from that of the machine's, which the clock moves
_TABLES = """
CREATE TABLE IF NOT EXISTS stream (next INTEGER, left_at REAL, digest TEXT, seed INTEGER, keys_version INTEGER);
CREATE TABLE IF NOT EXISTS returned (position INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS validation (key INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS clients (id INTEGER PRIMARY KEY, process INTEGER, born REAL, reading INTEGER);
CREATE TABLE IF NOT EXISTS held (client INTEGER, answer INTEGER, positions BLOB);
CREATE INDEX IF NOT EXISTS held_by ON held (client);
"""


class Ledger:
    """The books in the file `path` on a local disk, or in memory; everything but opening needs a `transaction`.

    UserError when it is no such file, or belongs to the stream of another data set or seed.
    """

    def __init__(self, path: str | Path | None, *, digest: str, seed: int) -> None:
        self._process, self._born = os.getpid(), psutil.Process().create_time()
        self._validation, self._keys_version = np.empty(0, np.uint64), 0
        try:
            self._db = sqlite3.connect(
                path or ":memory:", timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            # A killed process loses nothing this way; a machine that crashes may, but takes the servers with it.
            self._prepare()
        except sqlite3.Error as error:
            raise cannot_keep(path, error) from None
        with self.transaction():
            found = self._db.execute("SELECT digest, seed FROM stream").fetchone()
            if found is None:
                self._db.execute("INSERT INTO stream VALUES (0, 0, ?, ?, 0)", (digest, seed))
        if found not in (None, (digest, seed)):
            self.close()
            raise UserError(
                f"{path} keeps the state of a stream of data set {found[0]} with seed {found[1]}, this one is "
                f"{digest} with seed {seed}; delete that file, or give another one"
            )

    def _prepare(self) -> None:
        """Make the tables where they are missing. The change to WAL does not wait for others by itself: we do."""
        give_up = time.monotonic() + _BUSY_S
        while True:
            try:
                self._db.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; {_TABLES}")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is done inside, or nothing; other processes wait."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def next(self) -> int:
        """The first position never handed out."""
        return int(self._db.execute("SELECT next FROM stream").fetchone()[0])

    def left_at(self) -> float:
        """When the latest client left (Unix time)."""
        return float(self._db.execute("SELECT left_at FROM stream").fetchone()[0])

    def advance(self, position: int) -> None:
        """`position` is the first one never handed out."""
        self._db.execute("UPDATE stream SET next = ?", (position,))

    def rewind(self) -> None:
        """Nothing was ever handed out; validation keys stay what they are."""
        self._db.execute("DELETE FROM returned")
        self._db.execute("DELETE FROM held")
        self.advance(0)

    def put_back(self, positions: np.ndarray) -> None:
        """Let these positions (int64) return."""
        rows = [(position,) for position in positions.tolist()]
        self._db.executemany("INSERT OR IGNORE INTO returned VALUES (?)", rows)

    def take_returned(self, count: int) -> list[int]:
        """The lowest `count` positions that returned, which they have then no longer."""
        rows = self._db.execute("SELECT position FROM returned ORDER BY position LIMIT ?", (count,)).fetchall()
        if rows:
            self._db.execute("DELETE FROM returned WHERE position <= ?", rows[-1])
        return [row[0] for row in rows]

    def hold(self, client: int, answer: int, positions: np.ndarray) -> None:
        """`client` is sent these positions (int64) in its answer of this number."""
        self._db.execute("INSERT INTO held VALUES (?, ?, ?)", (client, answer, positions.tobytes()))

    def held(self, client: int, answer: int | None = None) -> list[np.ndarray]:
        """What a client holds, of one answer or of all."""
        chosen = "SELECT positions FROM held WHERE client = ? AND (answer = ? OR ? IS NULL)"
        return [np.frombuffer(row[0], np.int64) for row in self._db.execute(chosen, (client, answer, answer))]

    def release(self, client: int, *, first: int = 0, last: int = 2**62) -> None:
        """A client holds its answers `first` to `last` no longer."""
        self._db.execute("DELETE FROM held WHERE client = ? AND answer BETWEEN ? AND ?", (client, first, last))

    def enter(self) -> int:
        """A new client of this process; its number."""
        row = self._db.execute("INSERT INTO clients VALUES (NULL, ?, ?, 0)", (self._process, self._born))
        return int(row.lastrowid or 0)

    def mark(self, client: int, *, reading: bool) -> None:
        """Whether `client` has been given data since it connected or reset."""
        self._db.execute("UPDATE clients SET reading = ? WHERE id = ?", (reading, client))

    def readers(self, besides: int) -> int:
        """How many clients are reading, `besides` left out."""
        query = "SELECT count(*) FROM clients WHERE reading AND id != ?"
        return int(self._db.execute(query, (besides,)).fetchone()[0])

    def remove(self, client: int) -> None:
        """Strike a client out. What it holds returns."""
        for positions in self.held(client):
            self.put_back(positions)
        self.release(client)
        self._db.execute("DELETE FROM clients WHERE id = ?", (client,))
        self._db.execute("UPDATE stream SET left_at = ?", (time.time(),))

    def bury_the_dead(self) -> None:
        """Strike out the clients of server processes that were killed."""
        for process in self._db.execute("SELECT DISTINCT process, born FROM clients").fetchall():
            if not _is_alive(*process):
                query = "SELECT id FROM clients WHERE process = ? AND born = ?"
                for (client,) in self._db.execute(query, process).fetchall():
                    self.remove(client)

    def exclude(self, keys: Iterable[int]) -> None:
        """Add to the validation keys (unsigned, 64 bits)."""
        self._db.executemany("INSERT OR IGNORE INTO validation VALUES (?)", [(_signed(key),) for key in keys])
        self._db.execute("UPDATE stream SET keys_version = keys_version + 1")

    def validation_keys(self) -> np.ndarray:
        """All of them (uint64), read again only after a change; no transaction is needed."""
        (version,) = self._db.execute("SELECT keys_version FROM stream").fetchone()
        if version != self._keys_version:
            rows = self._db.execute("SELECT key FROM validation").fetchall()
            self._validation = np.array([row[0] for row in rows], np.int64).view(np.uint64)
            self._keys_version = version
        return self._validation

    def count(self, table: str) -> int:
        """How many rows there are in `clients`, `returned` or `validation`."""
        return int(self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def cannot_keep(path: str | Path | None, why: object) -> UserError:
    """The error for a file that cannot be the ledger."""
    return UserError(f"the state of the EIR stream cannot be kept in {path} ({why}); set eir.state=FILE")


def _is_alive(process: int, born: float) -> bool:
    """Whether a process of this number and birth runs; a number alone may by now be another's."""
    try:
        found = psutil.Process(process)
        same = abs(found.create_time() - born) < _CLOCK_MAY_MOVE_S
        return same and found.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _signed(key: int) -> int:
    """The same 64 bits as SQLite's integers have them, with a sign."""
    return key - (key >> 63 << 64)
