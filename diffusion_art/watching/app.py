"""The watch page over HTTP: which runs there are, their curves, their grids, and how their settings differ.

Everything is read only. Behind the same gate as `serve`: a token where others can reach it, a known `Host` elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from diffusion_art import __version__
from diffusion_art.reports import document
from diffusion_art.serving.api import pages
from diffusion_art.serving.api.errors import ApiError, answer_api_error, answer_validation, answering_http, invalid
from diffusion_art.serving.api.gate import Gate
from diffusion_art.serving.settings import Settings
from diffusion_art.watching.folder import PAGE as REPORT_PAGE
from diffusion_art.watching.folder import RunFolder
from diffusion_art.watching.runs import Runs, differences

COMPARED = 12  # runs at a time
GUARDED = ("/api/",)
# a report is a page of its own: it may come from somebody else, so it reads nothing of this server and asks for nothing
REPORT_CSP = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'"
)
PAGE = Path(__file__).with_name("page")

router = APIRouter()
Ids = Annotated[list[str], Query(alias="run", min_length=1)]


def create_app(runs: Runs, settings: Settings) -> FastAPI:
    """The ASGI application that shows `runs`."""
    app = FastAPI(title="diffusion_art.watch", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.runs = runs
    app.state.key = secrets.token_bytes(32)  # of the links to reports
    app.state.page = page_files()
    app.include_router(router)
    app.add_exception_handler(ApiError, answer_api_error)
    app.add_exception_handler(RequestValidationError, answer_validation)
    app.add_exception_handler(HTTPException, answering_http())
    app.add_middleware(Gate, settings=settings, guarded=GUARDED)
    return app


def page_files() -> dict[str, tuple[bytes, str]]:
    """What the page is made of, by name: its own files, and those that reports and the painting page have too."""
    shared = [Path(document.__file__).with_name("chart.js")]
    shared += [Path(__file__).parents[1] / "serving" / "page" / name for name in ("http.js", "theme.js")]
    return pages.read([*sorted(PAGE.iterdir()), *shared]) | {
        "base.css": (document.asset("style.css").encode(), "text/css")
    }


# ---------------------------------------------------------------------- what the page asks


@router.get("/api/runs")
def list_runs(request: Request) -> Response:
    runs: Runs = request.app.state.runs
    told = []
    for run in runs.summaries():
        link = f"report?{urlencode({'run': run.id, 'key': _report_key(request, run.id)})}" if run.report else None
        told.append(asdict(run) | {"report": link})
    return _unless_known(request, {"root": runs.root.name, "runs": told})


@router.get("/api/curves")
def curves(request: Request, ids: Ids, metric: Annotated[list[str] | None, Query()] = None) -> Response:
    """Of each run the asked metrics, the clock (seconds by step) and the steps of its grids. And what can be asked."""
    runs: Runs = request.app.state.runs
    told: dict[str, Any] = {}
    names: dict[str, None] = {}
    for folder in _folders(runs, ids):
        found = runs.curves(folder, metric or [])
        names |= dict.fromkeys(found.pop("names"))
        told[folder.id] = found | {"grids": list(folder.grids)}
    return _unless_known(request, {"metrics": sorted(names), "runs": told})


@router.get("/api/differences")
def config_differences(request: Request, ids: Ids) -> Response:
    folders = _folders(request.app.state.runs, ids)
    return _unless_known(request, {"runs": [folder.id for folder in folders], "keys": differences(folders)})


@router.get("/api/grid")
def grid(
    request: Request, id: Annotated[str, Query(alias="run")], step: Annotated[int, Query(ge=0)], small: bool = False
) -> Response:
    runs: Runs = request.app.state.runs
    (folder,) = _folders(runs, [id])
    path = folder.grids.get(step)
    try:
        if path is not None:
            content = runs.thumbnail(path) if small else path.read_bytes()
            return Response(content, media_type="image/webp" if small else "image/png")
    except OSError:  # it is gone, or half written
        pass
    raise ApiError(404, "This run has no grid at that step.", param="step", code="no_grid")


@router.get("/report")
def report(request: Request, id: Annotated[str, Query(alias="run")], key: str) -> Response:
    """A run's report.html. A link carries no token, so it has a key, which only the list of runs tells."""
    if hmac.compare_digest(key.encode(), _report_key(request, id).encode()):
        (folder,) = _folders(request.app.state.runs, [id])
        try:
            headers = {"content-security-policy": REPORT_CSP, "cache-control": "no-cache"}
            return Response((folder.path / REPORT_PAGE).read_bytes(), media_type="text/html", headers=headers)
        except OSError:
            pass
    raise ApiError(404, "There is no such report (any more): open it from the list of runs.", code="no_report")


def _report_key(request: Request, id: str) -> str:
    return hmac.digest(request.app.state.key, id.encode("utf-8", "surrogatepass"), "sha256").hex()


def _folders(runs: Runs, ids: list[str]) -> list[RunFolder]:
    """The runs of these ids, each once. ApiError 404 for one that is not there, 400 for too many."""
    if len(ids) > COMPARED:
        raise invalid(f"At most {COMPARED} runs at a time, not {len(ids)}.", param="run", code="too_many_runs")
    found = [runs.get(id) for id in dict.fromkeys(ids)]
    if None in found:
        raise ApiError(404, "There is no such run here (any more).", param="run", code="no_run")
    return [folder for folder in found if folder is not None]


def _unless_known(request: Request, told: dict[str, Any]) -> Response:
    """The answer as JSON, or 304 where the client has the same already."""
    content = json.dumps(told, separators=(",", ":"), default=str).encode("ascii")
    etag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"etag": etag})
    return Response(content, media_type="application/json", headers={"etag": etag})


# ---------------------------------------------------------------------- the page itself


@router.get("/")
def page(request: Request) -> Response:
    return pages.answer(request, "index.html")


@router.get("/page/{name}")
def page_file(name: str, request: Request) -> Response:
    return pages.answer(request, name)
