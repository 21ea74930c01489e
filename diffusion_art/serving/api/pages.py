"""The files of a page that runs in a browser: which types there are, what they may load, and how one is answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from fastapi import Request
from fastapi.responses import Response

from diffusion_art.serving.api.errors import ApiError

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Files = Mapping[str, tuple[bytes, str]]


def read(files: Iterable[Path]) -> dict[str, tuple[bytes, str]]:
    """(content, media type) by name, of those that a page is made of."""
    return {file.name: (file.read_bytes(), TYPES[file.suffix]) for file in files if file.suffix in TYPES}


def answer(request: Request, name: str) -> Response:
    """A file of the app's `state.page`; nothing else on the disk can be asked for.

    Raises:
        ApiError: 404, no page has that name.
    """
    files: Files = request.app.state.page
    content, media_type = files.get(name, (None, ""))
    if content is None:
        raise ApiError(404, "The page has no such file.")
    headers = {"content-security-policy": CSP, "cache-control": "no-cache"}
    return Response(content, media_type=media_type, headers=headers)
