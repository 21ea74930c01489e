"""The token by which a server knows its clients, as an HTTP header: `Authorization: Bearer TOKEN`."""

import hmac
import os
from collections.abc import Sequence

TOKEN_VARIABLE = "DIFFUSION_ART_STREAM_TOKEN"  # where servers and clients look for a token that nobody gave them


def token_of(given: str | None) -> str | None:
    """The token given, else that of the environment, else none."""
    return given or os.environ.get(TOKEN_VARIABLE) or None


def headers_of(token: str | None) -> dict[str, str]:
    """What a client adds to its request. HTTP headers are ISO-8859-1, and this one holds the token's UTF-8."""
    return {} if token is None else {"Authorization": f"Bearer {token}".encode().decode("latin-1")}


def authorised(given: Sequence[str], token: str | None) -> bool:
    """Whether the `Authorization` headers of a request are the token, compared in a time that tells nothing of it."""
    if token is None:
        return True
    expected = f"Bearer {token}".encode()
    return len(given) == 1 and hmac.compare_digest(given[0].encode("latin-1", "replace"), expected)
