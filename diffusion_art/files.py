"""Files that are there whole or not at all, mapped or locked; the cache folder; what others may read of paths and
settings.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PARTIAL = ".partial"  # what the name of a file ends with until it is whole
CACHE_VARIABLE = "DIFFUSION_ART_CACHE"
# a text that means the same without its quotes: neither a number nor true, false or null
_QUOTED = re.compile(
    r"^([^=']+=)'(?!(?:true|false|null|[-+\d_.]+|[\d.]+e[-+\d]+|[-+]?(?:nan|inf))'$)([\w./:@%-]+)'$", re.I
)
SECRETS = ("token",)  # keys of the config that no tracker is told, no report and no page


@contextmanager
def written(path: Path, *, on_disk: bool = False) -> Iterator[Path]:
    """A path to write to. At the end of the block it takes the name `path`, and the place of what had it.

    Until then it is called `<name>.partial`. An error in the block removes it; a killed process leaves it there.
    `on_disk` also holds when the machine crashes: the bytes are on the disk before the name is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    publish(partial, path, on_disk=on_disk)


@contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill. At the end of the block it takes the name `path`, and the place of what had it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.", ignore_cleanup_errors=True) as made:
        folder = Path(made) / "new"
        folder.mkdir()
        yield folder
        for file in folder.rglob("*.safetensors"):
            file.chmod(0o644)  # safetensors writes for the owner alone
        if path.exists():
            path.rename(Path(made) / "former")
        folder.rename(path)


def newest_first(paths: Iterable[Path]) -> list[Path]:
    """By when they were last changed."""
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def publish(partial: Path, path: Path, *, on_disk: bool = False) -> None:
    """Give a file that is whole its name; see `written`."""
    if on_disk:
        with partial.open("rb") as file:
            os.fsync(file.fileno())
    partial.replace(path)


def mapped(path: Path) -> mmap.mmap:
    """A file as memory, which is read from disk where it is touched. ValueError for an empty one."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def write_all(descriptor: int, data: memoryview, at: int) -> None:
    """Write all of `data` at a place of a file."""
    while data:
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time; the lock goes with the process that holds it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str]) -> None:
    """Write tensors by name, in any layout, as a safetensors file."""
    from safetensors.torch import save_file  # loads torch, which most of what writes files does without

    with written(path) as partial:
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata=metadata)
        partial.chmod(0o644)  # safetensors writes for the owner alone


def cache_folder(kind: str) -> Path:
    """The user's folder for one kind of what can be made again: in $DIFFUSION_ART_CACHE, else $XDG_CACHE_HOME or
    ~/.cache.
    """
    base = os.environ.get(CACHE_VARIABLE) or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "diffusion-art")
    return Path(base).expanduser() / kind


def without_home(text: str) -> str:
    """A text for others to read: `~` in place of the home folder, whose name is often a person's."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def without_secrets(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: without_secrets(value) for key, value in node.items() if key not in SECRETS}
    return [without_secrets(value) for value in node] if isinstance(node, list) else node


def key_of(word: str) -> str:
    """The key to which a word of a command gives a value."""
    return word.partition("=")[0].lstrip("+")


def words_without_secrets(words: Iterable[str]) -> list[str]:
    """What was typed as `key=value`, but for secrets."""
    return [word for word in words if key_of(word).rpartition(".")[2] not in SECRETS]


def command_line(name: str, words: Iterable[str]) -> str:
    """`python -m diffusion_art.NAME ...`, to be pasted into a shell: without secrets and the home folder.

    The quotes that `overrides.understood` puts round a text are left out where it would put them there again.
    """
    plain = (_QUOTED.sub(r"\1\2", word) for word in words_without_secrets(words))
    return without_home(" ".join([f"python -m diffusion_art.{name}", *map(_shell_word, plain)]))


def _shell_word(word: str) -> str:
    if shlex.quote(word) == word or "'" not in word or set(word) & set('"$`\\!'):
        return shlex.quote(word)
    return f'"{word}"'


def check_ours(folder: Path) -> None:
    """RuntimeError where others may put machine code into the folder."""
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise RuntimeError(f"others can write to {folder}, and what lies there is run: chmod 700 {folder}")
