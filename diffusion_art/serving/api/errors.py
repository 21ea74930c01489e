"""What the server says when it cannot do what was asked: OpenAI's error object, its status, its headers.

    {"error": {"message": ..., "type": ..., "param": ... or null, "code": ... or null}}

Nothing but ASCII goes out, so that no odd character of a request can break the answer about it.
"""

from __future__ import annotations

import difflib
import json
import logging
import math
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from diffusion_art.errors import UserError

log = logging.getLogger(__name__)

INVALID = "invalid_request_error"
SDAPI = "/sdapi/"  # below it, errors are AUTOMATIC1111's: {"error": ..., "detail": ...}
_SHOWN_CHARACTERS = 64  # of a value or a key that somebody sent
_OURS = {  # what other servers call a field of ours
    "inputs": "prompt",
    "input": "prompt",
    "text": "prompt",
    "caption": "prompt",
    "steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "sampler_name": "sampler",
    "scheduler": "sampler",
    "width": "size",
    "height": "size",
    "image_size": "size",
    "aspect_ratio": "size",
    "aspectRatio": "size",
    "resolution": "size",
    "batch_size": "n",
    "num_images": "n",
    "num_images_per_prompt": "n",
    "num_outputs": "n",
    "format": "output_format",
}
_MISPLACED = {"extra_body": "; what it holds belongs beside 'prompt'"}  # Python's openai package unpacks it
_PAINTS = "/v1/images/generations"


class ApiError(HTTPException):
    """An answer that is no picture.

    `param` is the field at fault, `code` a word for programs. With `retry_after_s` the client is told when to come
    back, and OpenAI's clients do so by themselves.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status, message)
        self.message, self.type, self.param, self.code = message, type, param, code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self, path: str = "") -> Response:
        """The answer at a path: OpenAI's error object, or AUTOMATIC1111's where its API is.

        A 401 never asks for `Basic`: a browser would keep the token and send it along for any page that asks it to.
        """
        headers, theirs = {}, path.startswith(SDAPI)
        if self.status_code == 401:
            headers["www-authenticate"] = "Bearer"
        if self.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(self.retry_after_s)))
            headers["x-should-retry"] = "true"
        elif self.status_code == 501:  # else OpenAI's clients ask again, as after any status from 500 on
            headers["x-should-retry"] = "false"
        body = {"error": self.code or self.type, "detail": self.message} if theirs else self.body()
        return AsciiResponse(body, status_code=self.status_code, headers=headers)


class AsciiResponse(JSONResponse):
    """JSON with every other character escaped: lone surrogates have no UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def invalid(message: str, *, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """400: a value that means nothing here, or asks for more than there is."""
    return ApiError(400, message, param=param, code=code)


def out_of_service(message: str, *, retry_after_s: float = 5.0) -> ApiError:
    """503: the server is ending, or out of memory for a moment."""
    return ApiError(503, message, type="server_error", code="unavailable", retry_after_s=retry_after_s)


def not_here(message: str) -> ApiError:
    """501: a part of somebody's API that this server does not have."""
    return ApiError(501, message, code="not_implemented")


def too_many(message: str, *, code: str, retry_after_s: float) -> ApiError:
    """429: the queue is full, or a token has had its share."""
    return ApiError(429, message, type="rate_limit_error", code=code, retry_after_s=retry_after_s)


def internal(error: BaseException) -> ApiError:
    """500 for an error of ours. The log says which and where; the message, which may hold a prompt, only at debug."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    log.error("%s at %s while answering a request", type(error).__name__, where)
    log.debug("in full:", exc_info=error)
    return ApiError(500, "The server made a mistake; its log says more.", type="server_error", code="internal_error")


def shown(value: object) -> str:
    """A value somebody sent, short and in ASCII; "" where it is too long or too deep to be worth showing."""
    if isinstance(value, bool | int | float) or value is None:
        text = str(value).lower() if isinstance(value, bool) else "null" if value is None else repr(value)
    elif isinstance(value, str):
        text = ascii(value)
    else:
        return ""
    return text if len(text) <= _SHOWN_CHARACTERS else ""


# ---------------------------------------------------------------------- of requests that do not fit the schema


def of_validation(errors: Sequence[Mapping[str, Any]], *, status: int = 400) -> ApiError:
    """The first complaint of pydantic's, in plain words; before that a prompt is missing, that it is called otherwise.

    `loc` begins with where the value stood (body, query, path); what follows is the field.
    """
    first = next((each for each in errors if _is_prompt(each)), errors[0])
    place, *path = first.get("loc") or ("body",)
    param = ascii(".".join(str(part) for part in path))[1:-1][:_SHOWN_CHARACTERS] if path else None
    kind, sent = first.get("type", ""), first.get("input")
    if kind == "json_invalid":
        return ApiError(status, "The body is not valid JSON.", code="invalid_json")
    if kind == "extra_forbidden":
        hint = f"; here it is called '{_OURS[param]}'" if param in _OURS else _MISPLACED.get(param or "", "")
        return ApiError(status, f"Unknown parameter: '{param}'{hint}.", param=param, code="unknown_parameter")
    if kind == "missing" and param:
        return ApiError(
            status, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
        )
    if param == "prompt" and kind == "string_too_short":
        return ApiError(status, "The prompt is empty: say what to paint.", param=param, code="empty_prompt")
    if param is None:
        return ApiError(status, f"The {place} must be {_kind_of_body(kind)}.", code="invalid_body")
    value = shown(sent)
    given = f" {value}" if value else ""
    wanted = str(first.get("msg", "it cannot be read")).removeprefix("Value error, ")
    message = f"Invalid value{given} for '{param}': {ascii(wanted)[1:-1]}."
    return ApiError(status, message, param=param, code="invalid_value")


def _is_prompt(error: Mapping[str, Any]) -> bool:
    """Whether a complaint is of an unknown field that others call so what is `prompt` here."""
    _, *path = error.get("loc") or ("body",)
    return error.get("type") == "extra_forbidden" and len(path) == 1 and _OURS.get(path[0]) == "prompt"


def _kind_of_body(kind: str) -> str:
    if kind.startswith("too_"):
        return "a JSON list of one or more"
    return f"a JSON {'list' if kind.startswith('list') else 'object'}, sent as application/json"


def of_mistake(error: UserError, *, param: str) -> ApiError:
    """400 for a value that the field's own rules allow and the maths does not."""
    text = str(error)
    return invalid(f"{text[:1].upper()}{text[1:]}.", param=param)


async def answer_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response(request.url.path)


async def answer_validation(request: Request, error: Exception) -> Response:
    """400, as OpenAI's; 422 at /predict, as EIR's, and below /sdapi, as AUTOMATIC1111's."""
    assert isinstance(error, RequestValidationError)
    path = request.url.path
    status = 422 if path == "/predict" or path.startswith(SDAPI) else 400
    return of_validation(error.errors(), status=status).response(path)


def answering_http(see: str = "", *, cors: bool = False) -> Callable[[Request, Exception], Awaitable[Response]]:
    """A handler for 404 and 405 of the router, and 400 of a body that could not be parsed. `see` ends what it says.

    `cors`: other pages may be let in by the setting of that name.
    """

    async def answer_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = ascii(request.url.path)[1:-1][:_SHOWN_CHARACTERS]
        messages = {
            404: f"There is nothing at {path}.{_meant(request)}{see}",
            405: (cors and _page_elsewhere(request)) or _wrong_method(path, request.method, error, see),
            400: "The body cannot be read as JSON in UTF-8.",
        }
        code = "invalid_json" if error.status_code == 400 else None
        found = ApiError(error.status_code, messages.get(error.status_code, str(error.detail)), code=code)
        response = found.response(request.url.path)
        if error.headers:
            response.headers.update(error.headers)
        return response

    return answer_http


def _wrong_method(path: str, method: str, error: HTTPException, see: str) -> str:
    taken = (error.headers or {}).get("Allow")
    return f"{path} cannot be asked with {method}{f', but with {taken}' if taken else ''}.{see}"


def _meant(request: Request) -> str:
    """The address that one there is not comes near to, or ends like, as a sentence: `/images/generations`,
    `/openai/deployments/dall-e-3/images/generations`. Of what is asked of a chat's server: where pictures are.
    """
    known = [path for path in request.app.openapi()["paths"] if "{" not in path]
    asked = request.url.path
    near = difflib.get_close_matches(asked[:_SHOWN_CHARACTERS], known, n=1, cutoff=0.8)
    near = near or [path for path in known if asked.endswith("/" + "/".join(path.split("/")[1:][-2:]))]
    if near:
        return f" Did you mean {near[0]}?"
    chats = request.method == "POST" and asked.startswith("/v1/") and _PAINTS in known
    return f" This server only paints: ask {_PAINTS}." if chats else ""


def _page_elsewhere(request: Request) -> str:
    """What is answered to the browser of a page that `cors` does not name, when it asks whether the page may call."""
    origin = shown(request.headers.get("origin", ""))[1:-1]
    if "access-control-request-method" not in request.headers or not origin:
        return ""
    return f"Pages of {origin} may not call this server; its owner can let them with cors=[{origin}]."
