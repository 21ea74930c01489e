"""How a server is run: who may ask, from where, and how much."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from dataclasses import dataclass, field

from diffusion_art.errors import UserError
from diffusion_art.net import is_loopback
from diffusion_art.serving.limits import Limits

TOKEN_VARIABLE = "DIFFUSION_ART_SERVE_TOKEN"
OPENAI_NAMES = ("dall-e-2", "dall-e-3", "gpt-image-*", "chatgpt-image-latest")
_TOKEN_CHARACTERS = 16
_MAKE_ONE = 'Make one: python -c "import secrets; print(secrets.token_urlsafe(24))"'


@dataclass(frozen=True)
class Settings:
    """What the HTTP face is told.

    `tokens` are what clients must know, as `Authorization: Bearer TOKEN`. Without any, everybody who reaches the port
    may ask, and then only a `Host` header that names this machine or one of `hosts` is answered, so that no web
    page elsewhere can point its own name at us (DNS rebinding). `cors` are the origins whose pages may call the
    API. `name` is the model's, `aliases` are others it answers to (`*`: any letters). `public_url`
    is how clients reach us, where they do not do so directly.

    Raises:
        UserError: a token that is too short to be a secret, or not plain ASCII.
    """

    tokens: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    name: str | None = None
    aliases: tuple[str, ...] = OPENAI_NAMES
    public_url: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for token in self.tokens:
            if len(token) < _TOKEN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
                raise UserError(
                    f"a token of {len(token)} characters is no secret: it takes {_TOKEN_CHARACTERS} or more, plain "
                    f"letters and digits. {_MAKE_ONE}"
                )

    def customer(self, authorization: str | None) -> str | None:
        """Who shows this header: a name for a token we know, None for others. Takes as long for any token.

        The token is a bearer's, or the password of `Basic`, as AUTOMATIC1111's clients show theirs.
        """
        scheme, _, token = (authorization or "").partition(" ")
        scheme, token = scheme.lower(), token.strip()
        if scheme == "basic":
            token = _password(token)
        given = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known in self.tokens:
            digest = hashlib.sha256(known.encode()).digest()
            if hmac.compare_digest(given, digest) and scheme in ("bearer", "basic"):
                found = digest.hex()[:12]
        return found

    def answers_to(self, host: str) -> bool:
        """Whether a `Host` header is one of ours; without tokens only."""
        if self.tokens:
            return True
        name = name_of(host)
        return name in self.hosts or is_loopback(name)


def name_of(host: str) -> str:
    """That of a `Host` header, without the port."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name.strip("[]").lower()


def _password(credentials: str) -> str:
    """That of `user:password` in base64; "" where it is none."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def tokens_of(given: str | list | None) -> tuple[str, ...]:
    """The tokens that a config gives, one or a list; that of the environment where it gives none."""
    token = given if given is not None else os.environ.get(TOKEN_VARIABLE) or None
    return tuple(str(each) for each in (token if isinstance(token, list) else [] if token is None else [token]))


def check_address(host: str, settings: Settings) -> None:
    """UserError for an address that others can reach, with no token to keep them out."""
    if not settings.tokens and not is_loopback(host):
        raise UserError(
            f"host={host} can be reached by others, so a token is needed: token=... or ${TOKEN_VARIABLE}. {_MAKE_ONE}"
        )
