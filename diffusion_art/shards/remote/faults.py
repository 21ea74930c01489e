"""What an object store or web server answers in place of bytes: a sentence for its user, or a reason to try again.

Every file system of fsspec has exceptions of its own, so they are told apart by the HTTP status that they carry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.shards.places import Address, without_secrets

_PASSING = {408, 425, 429}  # and all from 500 on

_SIGN_IN = {
    "s3": "AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; a public bucket needs FSSPEC_S3_ANON=true",
    "gs": "`gcloud auth application-default login`; a public bucket needs FSSPEC_GS_TOKEN=anon",
    "hf": "`hf auth login`, or HF_TOKEN",
    "http": "a line for the host in ~/.netrc, or headers in $FSSPEC_HTTP",
}
_SIGN_IN |= {"https": _SIGN_IN["http"], "gcs": _SIGN_IN["gs"], "s3a": _SIGN_IN["s3"]}


class Passing(Exception):
    """A fault that may be gone at the next try."""


class Short(Passing):
    """Fewer bytes came than were asked for: an answer was cut, or the file is."""


def understood(error: Exception, address: Address, file: str) -> UserError | Passing:
    """What `error` means for the reader of `file` at `address`."""
    status = status_of(error)
    where = address / file
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return UserError(f"there is no {where}: the store says that it does not exist (404)")
    if _is_refused(error) or status in (401, 403):
        known = _SIGN_IN.get(address.scheme, "what its fsspec file system asks for")
        return UserError(f"{where} may not be read ({status or 'no credentials'}); sign in with {known}")
    if status == 416:
        return UserError(f"{where} is shorter than its manifest.json says; upload the folder again")
    if status is not None and 400 <= status < 500 and status not in _PASSING:
        return UserError(f"{where} cannot be read: the store answers with HTTP status {status}")
    if any("Certificate" in type(one).__name__ for one in _chain(error)):
        return UserError(f"{where} cannot be read: the certificate of its server is not trusted ({one_line(error)})")
    if isinstance(error, TypeError | ValueError | NotImplementedError) and status is None:
        return UserError(f"{where} cannot be read: {one_line(error)}")
    return Passing(f"HTTP status {status}" if status is not None else one_line(error))


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an exception of aiohttp, botocore, gcsfs or huggingface_hub carries, or its cause does."""
    for one in _chain(error):
        if type(one).__module__ == "aiohttp.http_exceptions":  # of a body that was cut: its code 400 is nobody's answer
            continue
        response: Any = getattr(one, "response", None)
        if isinstance(response, dict):
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            found = getattr(response, "status_code", None)
        for value in (found, *(getattr(one, name, None) for name in ("status", "status_code"))):
            if isinstance(value, int):
                return value
        if not hasattr(one, "status") and isinstance(code := getattr(one, "code", None), int):
            return code  # gcsfs
    return None


def one_line(error: BaseException) -> str:
    """What `error` says, without secrets that an address in it may carry."""
    return without_secrets(" ".join(str(error).split()))[:300] or type(error).__name__


def _is_refused(error: BaseException) -> bool:
    if isinstance(error, PermissionError):
        return True
    return any("Credential" in type(one).__name__ for one in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
