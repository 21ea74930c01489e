"""A checkpoint as a folder, of which each process wrote its share (torch.distributed.checkpoint).

`plain.pt` holds all that is no shared tensor, and for each of these its name; they lie in `*.distcp`, and `.metadata`
says where. Any number of processes reads it, one too.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from diffusion_art.accel.shares import is_shared
from diffusion_art.errors import UserError
from diffusion_art.files import written

PLAIN, METADATA = "plain.pt", ".metadata"
SHARED = "shared tensor"  # the one key of what stands for it


def is_shared_checkpoint(path: Path) -> bool:
    """Whether it is such a folder, and whole: it gets its name when all is written, but a copy may lack a part."""
    try:
        return path.is_dir() and lacking(path) is None
    except UserError:
        return False


def lacking(path: Path) -> str | None:
    """The first file of a shared checkpoint that is not there, or shorter than its descriptions say; None: it is whole.

    Raises:
        UserError: its descriptions cannot be read.
    """
    if missing := [name for name in (PLAIN, METADATA) if not (path / name).is_file()]:
        return missing[0]
    ends: dict[str, int] = {}
    for part in described(path).storage_data.values():
        ends[part.relative_path] = max(ends.get(part.relative_path, 0), part.offset + part.length)
    sizes = {name: (path / name).stat().st_size if (path / name).is_file() else -1 for name in ends}
    return next((name for name, end in ends.items() if sizes[name] < end), None)


def write_shared(path: Path, checkpoint: dict[str, Any], *, first: bool, wait: Callable[[], Any]) -> None:
    """Write a checkpoint; every process has to. The `first` one writes what is not shared.

    It is written under another name, so that a kill leaves a whole folder or none. `wait` waits for all processes.
    """
    partial, old = path.with_name(f".{path.name}.partial"), _aside(path)
    if first:
        for former in (partial, old):
            _discard(former)
        partial.mkdir(parents=True)
    wait()
    tensors: dict[str, Tensor] = {}
    plain = _without(checkpoint, tensors, "")
    from torch.distributed.checkpoint.state_dict_saver import save

    save(tensors, checkpoint_id=partial)
    if first:
        torch.save(plain, partial / PLAIN)
        if path.exists():
            path.rename(old)
        partial.rename(path)
        _discard(old)
    wait()


@contextmanager
def written_file(path: Path) -> Iterator[Path]:
    """As `files.written`, where a shared checkpoint may have the name: it goes when the file is in its place."""
    old = _aside(path)
    try:
        with written(path) as partial:
            yield partial
            if path.is_dir():
                _discard(old)
                path.rename(old)
    except BaseException:
        if old.is_dir() and not path.exists():
            old.rename(path)
        raise
    _discard(old)


def _aside(path: Path) -> Path:
    """What a checkpoint is called whose name another one takes."""
    return path.with_name(f".{path.name}.old")


def _discard(path: Path) -> None:
    """Remove a file or folder, as far as that can be done."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _without(node: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """`node` with the names of its shared tensors in their places; these are put into `tensors`."""
    if isinstance(node, Tensor) and is_shared(node):
        tensors[name] = node.detach()
        return {SHARED: name}
    if isinstance(node, dict):
        return {key: _without(value, tensors, f"{name}/{key}") for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_without(value, tensors, f"{name}/{number}") for number, value in enumerate(node))
    return node


def read_shared(path: Path) -> dict[str, Any]:
    """All that a shared checkpoint holds, its tensors whole and on the CPU.

    Raises:
        UserError: a part of it is missing, or its descriptions cannot be read.
        RuntimeError: a part of it cannot be read.
    """
    plain = read_plain_part(path)
    # most commands never meet one, and these take a second to import
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    metadata = described(path)

    class Reader(FileSystemReader):
        """torch's unpickles `.metadata`; this one lets nothing but descriptions of tensors be made of it."""

        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            return metadata

    tensors: dict[str, Any] = {
        name: torch.empty(about.size, dtype=about.properties.dtype)
        for name, about in metadata.state_dict_metadata.items()
    }
    with warnings.catch_warnings():  # one process reads all, which is what we want
        warnings.filterwarnings("ignore", message=".*assuming the intent is to load in a single process.*")
        try:
            load(tensors, storage_reader=Reader(path), no_dist=True)
        except CheckpointException as error:  # which is no Exception
            reason, _ = next(iter(error.failures.values()))
            raise (RuntimeError(str(reason)) if isinstance(reason, Exception) else reason) from error
    return _with(plain, tensors)


def read_plain_part(path: Path) -> dict[str, Any]:
    """What a shared checkpoint holds but for the tensors that are shared, which are only named in it.

    Raises:
        UserError: a part of it is missing, also of the tensors, or its descriptions cannot be read.
    """
    if (name := lacking(path)) is not None:
        raise UserError(
            f"{path} is not whole: {name} in it is missing or cut short. Use another one of its run, or copy it again."
        )
    return torch.load(path / PLAIN, map_location="cpu", weights_only=True)


def shared_id(path: Path) -> str:
    """A hash of what it holds, as far as the descriptions tell."""
    return hashlib.sha256((path / METADATA).read_bytes() + (path / PLAIN).read_bytes()).hexdigest()[:8]


def _with(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if node.keys() == {SHARED}:
            return tensors[node[SHARED]]
        return {key: _with(value, tensors) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_with(value, tensors) for value in node)
    return node


def described(path: Path) -> Any:
    """What `.metadata` says of the tensors."""
    try:
        return _Descriptions(io.BytesIO((path / METADATA).read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError) as error:
        raise UserError(f"{path} cannot be read as a checkpoint ({error}). Copy it again.") from error


class _Descriptions(pickle.Unpickler):
    """Makes descriptions of tensors, and nothing that could run code."""

    DESCRIBED = "torch.distributed.checkpoint."
    NAMES = frozenset({("torch", "Size"), ("torch.serialization", "_get_layout")})
    PATHS = frozenset({("pathlib", "PosixPath"), ("pathlib._local", "PosixPath")})  # before Python 3.13, and in it

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.PATHS:
            return PurePosixPath
        described = module in (f"{self.DESCRIBED}metadata", f"{self.DESCRIBED}filesystem") and "." not in name
        kind = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if described or kind or (module, name) in self.NAMES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which could run code")
