"""What AUTOMATIC1111's front ends ask at their start: samplers, the model, settings; and what is read of a picture."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from PIL import Image

from diffusion_art.diffusion.samplers import SAMPLERS
from diffusion_art.serving.api.errors import ApiError, invalid, not_here, shown
from diffusion_art.serving.api.generations import ERRORS
from diffusion_art.serving.api.sdapi_schema import (
    ModelItem,
    PngInfo,
    PngInfoRequest,
    SamplerItem,
    SchedulerItem,
    SdError,
    UpscalerItem,
)
from diffusion_art.serving.studio import Studio
from diffusion_art.sheets import INFOTEXT, model_hash

PREFIX = "/sdapi/v1"
TAG = "AUTOMATIC1111's API"
SD_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": SdError, "description": text or ERRORS[status]["description"]}
    for status, text in {
        400: "",
        401: "",
        404: "There is no such sampler or model.",
        408: "",
        413: "",
        415: "",
        421: "",
        422: "The request is not well formed.",
        429: "",
        500: "",
        503: "",
    }.items()
}


def among(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: SD_ERRORS[status] for status in statuses}


GUARDED_ERRORS = among(401, 421)
# what front ends list at their start, and what we do not have; what is said of the web UI's process, and not of ours
NOTHING: dict[str, Any] = {
    **{key: [] for key in ("/latent-upscale-modes", "/sd-vae", "/sd-modules", "/loras", "/hypernetworks")},
    **{key: [] for key in ("/prompt-styles", "/face-restorers", "/realesrgan-models", "/script-info", "/extensions")},
    "/scripts": {"txt2img": [], "img2img": []},
    "/embeddings": {"loaded": {}, "skipped": {}},
    **{key: {} for key in ("/cmd-flags", "/memory")},
}
# taken, and nothing to do
TAKEN = (
    *(f"/refresh-{kind}" for kind in ("checkpoints", "embeddings", "loras", "vae")),
    *("/reload-checkpoint", "/unload-checkpoint", "/skip"),
)
_CHECKPOINT = re.compile(r"(.*?)(?:\.safetensors|\.ckpt)?(?: \[([0-9a-f]+)\])?", re.DOTALL)

router = APIRouter(prefix=PREFIX, tags=[TAG])


@router.get("/samplers", responses=GUARDED_ERRORS, summary="The samplers by their names there")
async def samplers() -> list[SamplerItem]:
    return [SamplerItem(name=kind.title, aliases=_aliases(kind.title)) for kind in SAMPLERS.values()]


@router.get("/schedulers", responses=GUARDED_ERRORS, summary="One: the run's own times")
async def schedulers() -> list[SchedulerItem]:
    return [SchedulerItem()]


@router.get("/sd-models", responses=GUARDED_ERRORS, summary="The model that is served")
async def sd_models(request: Request) -> list[ModelItem]:
    studio = _studio(request)
    name = studio.model.id
    return [ModelItem(title=name, model_name=name, hash=hash_of(studio), filename=f"{_file_name(name)}.ckpt")]


@router.get("/upscalers", responses=GUARDED_ERRORS, summary="None: sizes are enlarged as they need it")
async def upscalers() -> list[UpscalerItem]:
    return [UpscalerItem(name="None")]


def _always(answer: Any) -> Callable[[], Awaitable[Any]]:
    async def told() -> Any:
        return answer

    return told


for _path, _answer in NOTHING.items():
    router.get(_path, responses=GUARDED_ERRORS, include_in_schema=False)(_always(_answer))
for _path in TAKEN:
    router.post(_path, responses=GUARDED_ERRORS, include_in_schema=False)(_always(None))


@router.get("/options", responses=GUARDED_ERRORS, summary="The settings that front ends read")
async def options(request: Request) -> dict[str, Any]:
    studio = _studio(request)
    return {
        "sd_model_checkpoint": studio.model.id,
        "sd_checkpoint_hash": hash_of(studio),
        "sd_vae": "None",
        "CLIP_stop_at_last_layers": 1,
        "samples_format": "png",
    }


@router.post(
    "/options",
    responses=among(400, 401, 404, 408, 413, 421, 422),
    summary="Choose the model: there is one",
)
async def set_options(body: Annotated[dict[str, Any], Body()], request: Request) -> None:
    """404 for another model. Other settings are ignored."""
    check_checkpoint(_studio(request), body.get("sd_model_checkpoint"))


@router.post(
    "/png-info",
    responses=among(400, 401, 408, 413, 421, 422),
    summary="What a picture's file says it was painted from",
)
async def png_info(body: PngInfoRequest) -> PngInfo:
    try:
        content = base64.b64decode(body.image.rpartition(",")[2])
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:  # its head is read, no pixel is decoded
            items = {str(key): value for key, value in picture.info.items() if isinstance(value, str)}
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise invalid("This is no PNG in base64.", param="image") from None
    return PngInfo(info=items.pop(INFOTEXT, ""), items=items)


@router.post("/img2img", include_in_schema=False)
@router.post("/extra-single-image", include_in_schema=False)
@router.post("/extra-batch-images", include_in_schema=False)
@router.post("/interrogate", include_in_schema=False)
async def from_a_picture() -> None:
    """Parts of the API that start from a picture. The body is not read."""
    raise not_here("This model paints from captions only, so nothing can be made from a picture here.")


def check_checkpoint(studio: Studio, name: Any) -> None:
    """ApiError 404 for a checkpoint that is not the one served, by its title, its file or its hash, or by both:
    `NAME.safetensors [HASH]`.
    """
    text, ours = "" if name is None else str(name), hash_of(studio)
    found = _CHECKPOINT.fullmatch(text)
    assert found is not None, "all of its parts may be empty"
    if found[2] != ours and found[1] not in ("", ours, studio.model.id, _file_name(studio.model.id)):
        studio.orders.check_model(text)


def _file_name(model: str) -> str:
    return model.replace("/", "_")


def hash_of(studio: Studio) -> str:
    return model_hash(studio.model.checkpoint)


def sampler_named(name: str | None) -> str | None:
    """Our word for a sampler of theirs, also with a schedule's name behind it (`DPM++ 2M Karras`), which is ignored.

    Raises:
        ApiError: 404, as theirs, for one that there is not.
    """
    wanted = " ".join((name or "").lower().split())
    if wanted in ("", "automatic", "none"):
        return None
    for schedule in (" karras", " exponential", " polyexponential", " sgm uniform", " automatic"):
        wanted = wanted.removesuffix(schedule)
    for ours, kind in SAMPLERS.items():
        if wanted in (ours, kind.title.lower(), *_aliases(kind.title)):
            return ours
    titles = ", ".join(kind.title for kind in SAMPLERS.values())
    raise ApiError(
        404,
        f"Sampler {shown(name) or 'of that name'} not found; choose one of {titles}.",
        code="sampler_not_found",
    )


def _aliases(name: str) -> list[str]:
    plain = name.lower().replace("++", "pp").replace(" ", "_")
    return [plain, f"k_{plain}"]


def _studio(request: Request) -> Studio:
    return request.app.state.studio
