"""How a server is run: who may ask, from where, how much and how fast. `api/gate.py` holds requests to it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from diffusion_art.config import listed
from diffusion_art.errors import UserError
from diffusion_art.net import is_loopback

SIZES = ("any", "exact")
_LEAST = {"rate_per_minute": 1.0, "max_body_bytes": 1024, "max_predict_body_bytes": 1024}

TOKEN_VARIABLE = "DIFFUSION_ART_SERVE_TOKEN"
OPENAI_NAMES = ("dall-e-2", "dall-e-3", "gpt-image-*", "chatgpt-image-latest")
_TOKEN_CHARACTERS = 16
_MAKE_ONE = 'Make one: python -c "import secrets; print(secrets.token_urlsafe(24))"'


@dataclass(frozen=True)
class Limits:
    """What `conf/serve.yaml` says under `limits`. UserError for a number that would let nothing in."""

    max_body_bytes: int = 262_144
    max_predict_body_bytes: int = 4_194_304
    max_prompt_chars: int = 4000
    max_n: int = 10
    sizes: str = "any"
    max_size_px: int = 2048
    max_pixels: int = 20_971_520
    max_captions: int = 32
    max_steps: int = 200
    rate_per_minute: float | None = 240.0
    max_connections: int = 512
    header_timeout_s: float = 10.0
    body_timeout_s: float = 20.0
    write_timeout_s: float = 30.0
    keep_alive_s: float = 15.0
    file_lifetime_s: float = 3600.0
    max_file_bytes: int = 67_108_864

    def __post_init__(self) -> None:
        if self.sizes not in SIZES:
            raise UserError(f"limits.sizes={self.sizes} must be one of {', '.join(SIZES)}")
        for each in fields(self):
            if each.name == "sizes":
                continue
            value, least = getattr(self, each.name), _LEAST.get(each.name, 1 if each.type == "int" else 0.01)
            if value is None and each.name == "rate_per_minute":
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least:
                raise UserError(f"limits.{each.name}={value} must be at least {least:g}; its default is {each.default}")


@dataclass(frozen=True)
class Settings:
    """What the HTTP face is told.

    `tokens` are what clients must know, as `Authorization: Bearer TOKEN`. Without any, everybody who reaches the port
    may ask, and then only a `Host` header that names this machine or one of `hosts` is answered, so that no web
    page elsewhere can point its own name at us (DNS rebinding). `cors` are the origins whose pages may call the
    API. `name` is the model's, `aliases` are others it answers to (`*`: any letters). `public_url`
    is how clients reach us, where they do not do so directly; its host is one of our names.

    Raises:
        UserError: a token that is too short to be a secret, or not plain ASCII; a `public_url` that is no address.
    """

    tokens: tuple[str, ...] = field(default=(), repr=False)
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
        if self.public_url is not None and host_of(self.public_url) is None:
            raise UserError(
                f"public_url={self.public_url} is no address: give one such as https://example.org, or "
                "https://example.org/art where a proxy has this server below /art/."
            )

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Settings:
        """What `conf/serve.yaml` says. The token of the environment counts where the config has none.

        Raises:
            UserError: a token too short to be one, or a limit out of its range.
        """
        return cls(
            tokens=tokens_of(asked["token"]),
            hosts=hosts_of(asked["hosts"]),
            cors=tuple(origin.rstrip("/").lower() for origin in listed(asked["cors"])),  # as browsers write theirs
            name=asked["name"],
            aliases=tuple(listed(asked["aliases"])),
            public_url=None if asked["public_url"] is None else str(asked["public_url"]),
            limits=Limits(**asked["limits"]),
        )


def host_of(url: str) -> str | None:
    """That of an address of HTTP, small; None where it is none that a path can be put behind."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and not parts.query and not parts.fragment
        return (parts.hostname or None) if known else None
    except ValueError:
        return None


def hosts_of(given: Any) -> tuple[str, ...]:
    """The names of a server that a config gives, as `answers_to` compares them: without a port."""
    return tuple(re.sub(r"^([^:]+):\d+$", r"\1", host).lower() for host in listed(given))


def tokens_of(given: Any) -> tuple[str, ...]:
    """The tokens that a config gives, one or a list; that of the environment where it gives none."""
    return tuple(listed(given if given is not None else os.environ.get(TOKEN_VARIABLE) or None))


def check_address(host: str, settings: Settings) -> None:
    """UserError for an address that others can reach, with no token to keep them out."""
    if not settings.tokens and not is_loopback(host):
        raise UserError(
            f"host={host} can be reached by others, so a token is needed: token=... or ${TOKEN_VARIABLE}. {_MAKE_ONE}"
        )
