"""One chunk of a source -> samples as a shard holds them. This is what runs on all cores.

key   = BLAKE2b-64(identity), 16 hex digits: the original file's bytes name the picture, wherever it lies
split = val where BLAKE2b-64(key) / 2^64 < val_fraction: no matter the order, the source or the neighbours
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from diffusion_art.sources.base import BadPicture, Source
from diffusion_art.sources.captions import Captioner
from diffusion_art.sources.pictures import BadPictureError, Fit, encode_jpeg, load_picture


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as a shard will hold it."""

    key: str
    image: bytes  # JPEG
    caption: str
    metadata: dict[str, Any]  # the source's columns, untouched, and the original width and height


@dataclass(frozen=True)
class Encoder:
    """Callable: chunk -> its pictures encoded, or named as bad, in order."""

    source: Source
    image_size_px: int
    fit: Fit
    jpeg_quality: int
    caption_template: str | None
    captioner: Captioner = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "captioner", Captioner(self.caption_template, self.source.columns))

    def __call__(self, chunk: Any) -> list[Encoded | BadPicture]:
        results: list[Encoded | BadPicture] = []
        for picture in self.source.pictures(chunk):
            if isinstance(picture, BadPicture):
                results.append(picture)
                continue
            try:
                image, (width, height) = load_picture(picture.image, image_size_px=self.image_size_px, fit=self.fit)
            except BadPictureError as error:
                results.append(BadPicture(picture.name, str(error)))
                continue
            jpeg = encode_jpeg(image, quality=self.jpeg_quality)
            metadata = {"width": width, "height": height} | picture.columns
            results.append(Encoded(key_of(picture.identity), jpeg, self.captioner(picture.columns), metadata))
        return results


def key_of(identity: bytes) -> str:
    """The sample key of a picture."""
    return hashlib.blake2b(identity, digest_size=8).hexdigest()


def split_of(key: str, *, val_fraction: float) -> str:
    """`train` or `val`, by a hash of the key: raising the fraction only ever moves pictures into `val`."""
    digest = hashlib.blake2b(bytes.fromhex(key), digest_size=8, person=b"split").digest()
    return "val" if int.from_bytes(digest, "big") < val_fraction * 2**64 else "train"
