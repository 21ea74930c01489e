"""Files of a shard folder: checked, and errors that say how to get a whole one."""

import hashlib
import stat
from pathlib import Path

from diffusion_art.errors import UserError


def check_file(folder: Path, file: str, *, bytes: int) -> None:
    """`file` is a plain file of `bytes`, in `folder`; UserError when not: a folder may come from anywhere."""
    path = folder / file
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            path = path.resolve(strict=True)
            if not path.is_relative_to(folder.resolve()):
                raise UserError(
                    f"{folder / file} is a link to {path}, and files outside a shard folder are not read; if you "
                    f"made it, copy what it means: cp -rL {folder} NEW"
                )
            status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise mismatch(folder, file, "no file of that name", f"{bytes} bytes") from None
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, a name no file can have
        raise mismatch(folder, file, f"nothing that can be read ({error})", f"{bytes} bytes") from None
    if not stat.S_ISREG(status.st_mode):
        raise mismatch(folder, file, "no plain file", f"{bytes} bytes")
    if status.st_size != bytes:
        raise mismatch(folder, file, f"{status.st_size} bytes", f"{bytes} bytes")


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
