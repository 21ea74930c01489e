"""Tars as an enemy would pack them. Each tries to leave a file called `canary` behind, or to get at `secret`."""

from __future__ import annotations

import io
import pickle
import subprocess
import tarfile
from pathlib import Path

from tests.fakes_sources import encoded, picture


class Bomb:
    """Unpickling this runs `touch canary`."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return subprocess.call, (["touch", str(self.canary)],)


def add(
    tar: tarfile.TarFile, name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    tar.addfile(info, io.BytesIO(content))


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header promises width x height pixels: a few hundred bytes, at a camera's word."""
    data = encoded(picture(0))
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[start + 4 :]


def write_hostile_tar(file: Path, *, canary: Path, secret: Path) -> Path:
    """One good sample, `good.jpg`; everything else is malice."""
    bomb, image = pickle.dumps(Bomb(canary)), encoded(picture(0))
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        for suffix in ("pkl", "pickle", "pyd", "pth", "pt"):
            add(tar, f"pickled.{suffix}", bomb)
        add(tar, "pickled.jpg", bomb)
        add(tar, f"pipe:touch {canary};.jpg", image)
        add(tar, "../escape.jpg", image)
        add(tar, f"{secret.parent}/absolute.jpg", image)
        add(tar, "linked.jpg", kind=tarfile.SYMTYPE, link=str(secret))
        add(tar, "hard.jpg", kind=tarfile.LNKTYPE, link=str(secret))
        add(tar, "pipe.jpg", kind=tarfile.FIFOTYPE)
        add(tar, "device.jpg", kind=tarfile.CHRTYPE)
        add(tar, "huge.jpg", jpeg_of(20_000, 10_000))
        add(tar, "script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(canary) (w) file closefile\n%%EOF\n")
        add(tar, "markup.jpg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>')
        add(tar, "good.jpg", encoded(picture(1)))
        add(tar, "good.txt", b"the only good one")
    return file
