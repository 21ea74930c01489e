"""One tar of somebody else's: every member's header judged, every picture decoded, nothing unpacked or run."""

from __future__ import annotations

import tarfile
from pathlib import Path

from diffusion_art.errors import UserError
from diffusion_art.shards.lint.shards import Findings
from diffusion_art.sources.base import Item, Note, Picture
from diffusion_art.sources.pictures.pictures import BadPictureError, load_picture
from diffusion_art.sources.tars.samples import headers
from diffusion_art.sources.tars.tars import Tars

# Suffixes whose content a common reader of tars executes: unpickles, imports or hands to a shell.
CODE_SUFFIXES = frozenset(
    ("pkl", "pickle", "pyd", "pth", "pt", "ckpt", "joblib", "py", "so", "dll", "exe", "sh", "bat")
)
_SMALL_PX = 64  # pictures are decoded as `prepare` would, at no more than the cost of a thumbnail


def tars_at(path: Path) -> list[Path]:
    """The tar that `path` is, or the tars in it. UserError when there are none."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.glob("*.tar") if file.is_file()) if path.is_dir() else []
    if not found:
        raise UserError(
            f"{path} holds neither shards nor tars; name a folder that `python -m diffusion_art.prepare "
            f"source=NAME out={path}` has built, or one with .tar files in it"
        )
    return found


def lint_tar(file: Path, findings: Findings, *, pictures: bool) -> int:
    """Add what is wrong with `file` to `findings`; the number of its samples, hostile members left out."""
    try:
        keys: dict[str, int] = {}
        for member in headers(file):
            _lint_member(member, f"{file.name} {member.name}", findings)
        source = Tars(file)
        for chunk in source.chunks():
            for entry in chunk.entries:
                keys[entry.key] = keys.get(entry.key, 0) + 1
            if pictures:
                for item in source.pictures(chunk):
                    _lint_picture(item, findings)
    except UserError as error:
        findings.add("layout", file.name, str(error))
        return 0
    for key, count in keys.items():
        if count > 1:
            findings.add("key", f"{file.name} {key}", f"is the name of {count} samples")
    return sum(keys.values())


def _lint_member(member: tarfile.TarInfo, where: str, findings: Findings) -> None:
    name = member.name
    if member.issym() or member.islnk():
        findings.add("link", where, f"is a link to {member.linkname!r}")
    elif member.isdev():
        findings.add("link", where, "is a device or a pipe")
    if name.startswith(("/", "pipe:")) or ".." in name.split("/") or "\\" in name or not name.isprintable():
        findings.add("path", where, f"has the name {name!r}")
    if not CODE_SUFFIXES.isdisjoint(name.rpartition("/")[2].lower().split(".")[1:]):
        findings.add("code", where, f"has {member.size} bytes that nothing here opens")


def _lint_picture(item: Item, findings: Findings) -> None:
    if not isinstance(item, Picture):
        if not isinstance(item, Note):
            findings.add("picture", item.name, item.reason)
        return
    try:
        load_picture(item.image, image_size_px=_SMALL_PX)
    except BadPictureError as error:
        findings.add("picture", item.name, str(error))
    if "caption" in item.columns and not item.columns["caption"].strip():
        findings.add("caption", item.name, "has no caption")
