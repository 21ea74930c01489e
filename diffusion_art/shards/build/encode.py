"""One chunk of a source -> samples as a shard holds them. This is what runs on all cores.

key   = BLAKE2b-64(identity), 16 hex digits: the original file's bytes name the picture, wherever it lies
split = val where BLAKE2b-64(key) / 2^64 < val_fraction: no matter the order, the source or the neighbours,
        unless the source names its validation split
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from diffusion_art.captions.captioner import CAPTIONS, Captioning, distinct
from diffusion_art.sizes import Size
from diffusion_art.sources.base import BadPicture, LeftOut, Picture, Source
from diffusion_art.sources.embedded import EMBEDDED, embedded_caption
from diffusion_art.sources.paths.names import STEM, words_of_name
from diffusion_art.sources.pictures import BadPictureError, Fit, encode_jpeg, load_picture


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as a shard will hold it."""

    key: str
    image: bytes  # JPEG
    caption: str
    metadata: dict[str, Any]  # the source's columns, untouched, the original width and height, and all captions
    split: str | None = None  # that its source names

    @property
    def captions(self) -> tuple[str, ...]:
        """All that there are to draw from: none where the only one is empty."""
        kept = self.metadata.get(CAPTIONS)  # a source may have a column of that name, which is text
        return distinct(kept if isinstance(kept, list) else (self.caption,))

    def with_captions(self, texts: Sequence[str]) -> Encoded:
        """The picture with these, the first of them its caption."""
        more = {CAPTIONS: list(texts)} if len(texts) > 1 else {}
        return replace(self, caption=texts[0], metadata={**self.metadata, **more})


Result: TypeAlias = Encoded | BadPicture | LeftOut


@dataclass(frozen=True)
class Encoder:
    """Callable: chunk -> its pictures encoded, or named as bad or left out, in order."""

    source: Source
    image_size_px: int
    fit: Fit
    jpeg_quality: int
    caption_template: str | None
    max_megapixels: float = 50.0
    buckets: tuple[Size, ...] = ()  # none: squares
    captioning: Captioning = field(init=False)

    def __post_init__(self) -> None:
        columns = self.source.columns
        captioning = Captioning(self.caption_template, None if columns is None else (*columns, EMBEDDED, STEM))
        object.__setattr__(self, "captioning", captioning)

    def __call__(self, chunk: Any) -> list[Result]:
        return [self._encoded(item) if isinstance(item, Picture) else item for item in self.source.pictures(chunk)]

    def _encoded(self, picture: Picture) -> Encoded | BadPicture:
        try:
            image, (width, height) = load_picture(
                picture.image,
                image_size_px=self.image_size_px,
                fit=self.fit,
                max_megapixels=self.max_megapixels,
                buckets=self.buckets,
            )
        except BadPictureError as error:
            return BadPicture(picture.name, str(error))
        jpeg = encode_jpeg(image, quality=self.jpeg_quality)
        known = picture.columns
        if EMBEDDED in self.captioning.names and EMBEDDED not in known:
            known = {**known, EMBEDDED: embedded_caption(picture.image)}
        if STEM in self.captioning.names and STEM not in known:
            known = {**known, STEM: words_of_name(known)}
        texts = self.captioning(known, picture.captions)
        columns = {"width": width, "height": height} | known
        metadata = self.captioning.metadata(columns, texts, picture.captions)
        return Encoded(key_of(picture.identity), jpeg, texts[0], metadata, picture.split)


def key_of(identity: bytes) -> str:
    """The sample key of a picture."""
    return hashlib.blake2b(identity, digest_size=8).hexdigest()


def split_of(key: str, *, val_fraction: float) -> str:
    """`train` or `val`, by a hash of the key: raising the fraction only ever moves pictures into `val`."""
    digest = hashlib.blake2b(bytes.fromhex(key), digest_size=8, person=b"split").digest()
    return "val" if int.from_bytes(digest, "big") < val_fraction * 2**64 else "train"
