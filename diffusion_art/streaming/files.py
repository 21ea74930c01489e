"""Files of a shard folder: published whole, checksummed, and named with their mend when broken."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from diffusion_art.errors import UserError


def publish(file: BinaryIO, partial: Path, path: Path) -> None:
    """Flush `file`, open on `partial`, to disk and name it `path`: a crash leaves all of it or nothing."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    partial.replace(path)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rebuild(folder: Path) -> str:
    """The command that builds `folder`, for error messages."""
    return f"`python -m diffusion_art.prepare source=NAME out={folder}`"


def mismatch(folder: Path, file: str, found: str, expected: str) -> UserError:
    """The error for a file that is not what the manifest beside it says."""
    return UserError(
        f"{folder / file} does not match its manifest.json: found {found}, the manifest says {expected}; "
        f"copy the folder again, or build it again with {rebuild(folder)}"
    )
