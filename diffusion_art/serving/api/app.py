"""The HTTP face, put together: the API, the page, health and figures, behind one gate."""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from diffusion_art import __version__
from diffusion_art.serving import api
from diffusion_art.serving.api import docs, pages
from diffusion_art.serving.api.errors import (
    SDAPI,
    ApiError,
    answer_api_error,
    answer_validation,
    answering_http,
    out_of_service,
)
from diffusion_art.serving.api.gate import Gate
from diffusion_art.serving.api.generations import ERRORS
from diffusion_art.serving.api.schema import ErrorAnswer, Health, Model, ModelList, Suggestions
from diffusion_art.serving.api.sdapi import Works
from diffusion_art.serving.api.suggestions import suggest
from diffusion_art.serving.studio import Studio

PAGE = Path(__file__).parents[1] / "page"
# What takes a token, where there is one. The page, its files and health do not; pictures have names nobody can guess.
GUARDED = ("/v1/", "/predict", "/info", "/metrics", "/sdapi/")
_DESCRIPTION = (
    "Paintings over HTTP: OpenAI's images API, with a seed, a sampler, steps, guidance and a negative prompt on top; "
    "AUTOMATIC1111's /sdapi/v1; and EIR's /predict."
)
_GUARDED: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in (401, 421)}
_DOWN: dict[int | str, dict[str, Any]] = {
    421: ERRORS[421],
    503: {"model": ErrorAnswer, "description": "Not now."},
}

router = APIRouter()


def create_app(studio: Studio) -> FastAPI:
    """The ASGI application that serves `studio`. The engine is started and ended by the caller that made it."""
    app = FastAPI(
        title="diffusion_art",
        description=_DESCRIPTION,
        version=__version__,
        servers=None if (url := studio.settings.public_url) is None else [{"url": url.rstrip("/")}],
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.studio = studio
    app.state.page = pages.read(sorted(PAGE.iterdir()))
    app.state.suggestions = None
    app.state.suggesting = asyncio.Lock()
    app.state.works = Works()
    for part in (*routers(), router):
        app.include_router(part)
    app.add_exception_handler(ApiError, answer_api_error)
    app.add_exception_handler(RequestValidationError, answer_validation)
    app.add_exception_handler(HTTPException, answering_http(" See /docs for what there is.", cors=True))
    app.add_middleware(Gate, settings=studio.settings, guarded=GUARDED, answered=studio.metrics.answered)
    if studio.settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=studio.settings.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # the openai package in a browser sends a dozen of its own
            expose_headers=["Retry-After", "X-Request-Id"],
            allow_private_network=True,  # a page on the internet that is named may ask this machine
        )
    _document(app, guarded=bool(studio.settings.tokens))
    return app


def routers() -> list[APIRouter]:
    """Those of the modules beside this one: a new module with a `router` is served."""
    names = sorted(module.name for module in iter_modules(api.__path__) if module.name != "app")
    found = (getattr(import_module(f"{api.__name__}.{name}"), "router", None) for name in names)
    return [part for part in found if isinstance(part, APIRouter)]


def _document(app: FastAPI, *, guarded: bool) -> None:
    """An OpenAPI description that says what this server says: no 422 of FastAPI's own, and where a token is needed."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            for path, methods in schema["paths"].items():
                for operation in methods.values():
                    if path != "/predict" and not path.startswith(SDAPI):
                        operation["responses"].pop("422", None)
                    if guarded and path.startswith(GUARDED):
                        operation["security"] = [{"token": []}]
            for name in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(name, None)
            if guarded:
                schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return app.openapi_schema or {}

    app.openapi = described  # type: ignore[method-assign]


@router.get("/v1/models", responses=_GUARDED, summary="The model that is served", tags=["OpenAI's images API"])
async def models(request: Request) -> ModelList:
    return ModelList(data=[request.app.state.studio.model])


@router.get(
    "/v1/models/{name:path}",
    responses={**_GUARDED, 404: ERRORS[404]},
    summary="The model of a name",
    tags=["OpenAI's images API"],
)
async def model(name: str, request: Request) -> Model:
    studio: Studio = request.app.state.studio
    studio.orders.check_model(name)
    return studio.model


@router.get("/v1/suggestions", responses=_GUARDED, summary="Words to build captions from", tags=["Page"])
async def suggestions(request: Request) -> Suggestions:
    state = request.app.state
    async with state.suggesting:
        if state.suggestions is None:
            state.suggestions = await asyncio.to_thread(suggest, state.studio.run)
    return state.suggestions


@router.get("/healthz", include_in_schema=False)
@router.get("/livez", include_in_schema=False)
@router.get("/ping", include_in_schema=False)
@router.get("/health", responses=_DOWN, summary="Whether the server lives", tags=["Operation"])
async def health(request: Request) -> Health:
    """200 as long as the engine's thread lives, also while the server drains."""
    studio: Studio = request.app.state.studio
    if not studio.engine.alive and not studio.draining:
        raise out_of_service("The engine has died; its log says more.")
    return Health(model=studio.model.id, version=__version__)


@router.get("/readyz", include_in_schema=False)
@router.get("/ready", responses=_DOWN, summary="Whether it takes pictures on", tags=["Operation"])
async def ready(request: Request) -> Health:
    """200 while pictures are taken on; 503 once the server drains."""
    studio: Studio = request.app.state.studio
    if not studio.ready:
        raise out_of_service("The server takes no more pictures on.")
    return Health(model=studio.model.id, version=__version__)


@router.get("/controlnet/model_list", include_in_schema=False)
@router.get("/controlnet/module_list", include_in_schema=False)
@router.get("/controlnet/control_types", include_in_schema=False)
async def no_controlnet(request: Request) -> dict[str, Any]:
    """AUTOMATIC1111's front ends with a page for this extension fail without its lists. Its `version` would say that
    it is there.
    """
    name = request.url.path.rpartition("/")[2]
    return {name: {} if name == "control_types" else []}


@router.get(
    "/metrics",
    response_class=Response,
    responses={**_GUARDED, 200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}}},
    summary="Figures for Prometheus",
    tags=["Operation"],
)
async def metrics(request: Request) -> Response:
    text, content_type = request.app.state.studio.metrics.render(request.headers.get("accept", ""))
    return Response(text, headers={"content-type": content_type})


@router.get("/files/{name}", response_class=Response, include_in_schema=False)
async def file(name: str, request: Request) -> Response:
    """A picture that was answered as a url."""
    studio: Studio = request.app.state.studio
    found = studio.files.get(name)
    if found is None:
        raise ApiError(404, "There is no such picture (any more).", code="file_expired")
    kept, seconds_left = found
    headers = {
        "cache-control": f"private, max-age={int(seconds_left)}",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "cross-origin",
    }
    return Response(kept.content, media_type=kept.media_type, headers=headers)


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def documentation(request: Request) -> Response:
    studio: Studio = request.app.state.studio
    base_url = (studio.settings.public_url or str(request.base_url)).rstrip("/")
    text = docs.page_of(request.app, base_url=base_url, guarded=bool(studio.settings.tokens))
    return HTMLResponse(text, headers={"content-security-policy": docs.CSP})


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def page(request: Request) -> Response:
    return pages.answer(request, "index.html")


@router.get("/page/{name}", response_class=Response, include_in_schema=False)
async def page_file(name: str, request: Request) -> Response:
    return pages.answer(request, name)
