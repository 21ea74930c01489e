"""Ask the frozen networks of a run once about each picture and caption of its shards, and keep it beside these.

What is kept is what training would have got from them on the way, rounded to bfloat16 (side_files.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.progress import MofNCompleteColumn
from torch import Tensor, nn

from diffusion_art.config import build, class_of
from diffusion_art.data.transforms import to_float
from diffusion_art.errors import UserError
from diffusion_art.models.codec import Codec
from diffusion_art.models.image_tower import ImageTower
from diffusion_art.models.text_encoder import TextEncoder
from diffusion_art.shards.build.engine import Engine, LocalEngine
from diffusion_art.shards.manifest import split_of
from diffusion_art.shards.pixels import BadPicture, decode_into
from diffusion_art.shards.places import Address, Component
from diffusion_art.shards.reader import ShardSet
from diffusion_art.shards.side_files import (
    FEATURES,
    KINDS,
    LATENTS,
    TEXT,
    SideWriter,
    caption_key,
    folder_of,
    read_record,
    record_of,
)
from diffusion_art.sizes import Size, named
from diffusion_art.training.precompute.precomputed import codec_digest, features_digest, text_digest
from diffusion_art.units import progress_bar

PIECE = 64  # pictures or captions that a worker is given at a time
_IN_PROCESS_UP_TO = 2 * PIECE  # starting worker processes takes longer than these


class Piece(NamedTuple):
    """Samples [start, stop) of a split or a bucket (buckets.py), whose pictures have one size."""

    name: str
    start: int
    stop: int
    size: Size


def samples_of(shards: ShardSet, piece: Piece) -> np.ndarray:
    """Their numbers (int64) within the split."""
    return shards.samples(piece.name, None, 0, piece.start, piece.stop)


@dataclass
class SeenBy:
    """Callable: samples of the shards in `folder` -> records of what a network makes of each picture. Pictures that
    cannot be read have none.

    `node` is the part of a config of a codec, whose latents these are, or of an image tower. It is built where it is
    first needed, in each worker.
    """

    node: Mapping[str, Any]
    folder: Path
    device: str

    def __call__(self, piece: Piece) -> list[bytes]:
        width, height = piece.size
        keys, _, images = self._shards.views(piece.name, samples_of(self._shards, piece))
        rows, kept = np.empty((len(keys), height, width, 3), np.uint8), []
        for key, image in zip(keys.tolist(), images, strict=True):
            try:
                decode_into(image or b"", rows[len(kept)])
            except BadPicture:
                continue
            kept.append(key)
        if not kept:
            return []
        pictures = torch.from_numpy(rows[: len(kept)]).permute(0, 3, 1, 2)
        found = self._seen(to_float(pictures.to(self.device)))
        return [record_of(key, found.shape[1:], _bytes(row)) for key, row in zip(kept, found, strict=True)]

    @torch.no_grad()
    def _seen(self, pictures: Tensor) -> Tensor:
        network = self._network
        return network(pictures) if isinstance(network, ImageTower) else network.encode(pictures)

    @cached_property
    def _network(self) -> Codec | ImageTower:
        return build(dict(self.node)).to(self.device)

    @cached_property
    def _shards(self) -> ShardSet:
        return ShardSet.open(self.folder)

    def __getstate__(self) -> dict[str, Any]:
        return {"node": self.node, "folder": self.folder, "device": self.device}


@dataclass
class StatesOf:
    """Callable: captions -> records of their text states. `node` is the encoder's part of a config."""

    node: Mapping[str, Any]
    device: str

    def __call__(self, captions: list[str]) -> list[bytes]:
        cond, context = self._encoder.encode(captions), self._encoder.context_length
        records = []
        for caption, tokens, mask, pooled in zip(captions, cond.tokens, cond.mask, cond.pooled, strict=True):
            states = tokens[mask]
            shape = (*states.shape, len(pooled), context)
            records.append(record_of(_key(caption), shape, _bytes(states) + _bytes(pooled)))
        return records

    @cached_property
    def _encoder(self) -> TextEncoder:
        remembers_nothing = {"cache_captions": 0} if "cache_captions" in self.node else {}
        return build({**self.node, **remembers_nothing}).to(self.device)

    def __getstate__(self) -> dict[str, Any]:
        return {"node": self.node, "device": self.device}


@dataclass(frozen=True)
class Encoders:
    """The frozen encoders of a model's config, and the image tower of its alignment, on `device`; those of `what` are
    asked.
    """

    node: Mapping[str, Any]
    what: tuple[str, ...]
    device: str
    tower: Mapping[str, Any] | None = None

    @cached_property
    def codec(self) -> Codec:
        return build(dict(self.node["codec"]))

    @cached_property
    def digests(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Of each kind the digest, and what the encoder says of itself."""
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        if LATENTS in self.what:
            found[LATENTS] = codec_digest(self.codec), self.codec.describe() or {}
        if TEXT in self.what:
            encoder = build(dict(self.node["text_encoder"]))
            found[TEXT] = text_digest(encoder), encoder.describe()
        if FEATURES in self.what:
            tower = build(dict(self.tower or {}))
            found[FEATURES] = features_digest(tower), tower.describe()
        return found


def chosen(
    what: Iterable[str] | None,
    node: Mapping[str, Any],
    *,
    tower: Mapping[str, Any] | None = None,
    features: bool = False,
) -> tuple[str, ...]:
    """What is to be computed for a model's config; None: all that its encoders can be asked for, and with `features`
    those of the image `tower` of its alignment.

    Raises:
        UserError: no such kind, or none can be computed.
    """
    if what is not None:
        kinds = tuple(what)
        if unknown := set(kinds) - set(KINDS):
            raise UserError(f"what={min(unknown)} is not one of {', '.join(KINDS)}.")
        if FEATURES in kinds and tower is None:
            raise UserError("what=[features] asks the image tower of an alignment: set alignment=features.")
        for kind, part in ((LATENTS, "codec"), (TEXT, "text_encoder")):
            if kind in kinds and not node.get(part):
                raise UserError(
                    f"what=[{kind}] asks the {part} of a model, and this one has none: give the words of a training "
                    "that has one."
                )
        return kinds
    codec, seen = node.get("codec"), features and tower is not None
    has_weights = codec is not None and issubclass(class_of(dict(codec)), nn.Module)
    able = (has_weights, _is_frozen(node.get("text_encoder")), seen)
    if found := tuple(kind for kind, can in zip(KINDS, able, strict=True) if can):
        return found
    raise UserError(
        "nothing of this model can be computed before: its codec has no weights and its text encoder is trained. Take "
        "model/codec=vae model.codec.path=PLACE, or model/text_encoder=open_clip_pretrained, or give an alignment and "
        "what=[features]."
    )


def precompute(component: Component, encoders: Encoders, engine: Engine, *, progress: bool = True) -> Iterator[str]:
    """Write what `encoders` say of the shards of `component` beside these, where it is not there. A line for each kind.

    Raises:
        UserError: the shards are not in a folder of this machine, the codec cannot encode pictures of their sizes,
            nothing could be encoded, or the folder cannot be written to.
    """
    if isinstance(component.path, Address):
        raise UserError(f"precompute writes beside the shards, and {component.path} is no folder: copy it to a disk.")
    shards = ShardSet.open(component.path, caption_template=component.caption_template)
    if LATENTS in encoders.what:
        _check_whole(shards, encoders.codec)
    if isinstance(engine, LocalEngine) and sum(shards.splits.values()) <= _IN_PROCESS_UP_TO:
        engine = LocalEngine(workers=1)
    for kind, (digest, about) in encoders.digests.items():
        folder = folder_of(shards.folder, kind, digest, shards.caption_template)
        told = {"kind": kind, "digest": digest, "encoder": about, "shards": shards.digest}
        writer = SideWriter(folder, told | ({"caption_template": shards.caption_template} if kind == TEXT else {}))
        if writer.finished:
            yield f"{folder} is there already"
            continue
        with writer:
            if kind == TEXT:
                function = StatesOf(encoders.node["text_encoder"], encoders.device)
                _write(function, _captions(shards, writer), writer, engine, total=None, shown=progress)
            else:
                node = encoders.node["codec"] if kind == LATENTS else encoders.tower or {}
                function, total = SeenBy(node, shards.folder, encoders.device), sum(shards.splits.values())
                _write(function, _pieces(shards, writer), writer, engine, total=total, shown=progress)
            if not len(writer):
                raise UserError(f"no {kind} could be made of {shards.place}: none can be read.")
            writer.finish()
        yield f"{folder}: {len(writer):,} records of {kind}"


def _check_whole(shards: ShardSet, codec: Codec) -> None:
    """Latents stand for `factor` x `factor` pixels each."""
    step = codec.factor
    for part in shards.one_sized():
        if part.size[0] % step or part.size[1] % step:
            key = "bucket_step_px" if shards.buckets else "image_size_px"
            raise UserError(
                f"{shards.place} holds pictures of {named(part.size)} px, and latents of {type(codec).__name__} are of "
                f"sides that are multiples of {step} px: build the shards with such a {key} "
                f"(`python -m diffusion_art.prepare ... {key}=N`)."
            )


def _write(
    function: Callable[[Any], list[bytes]],
    pieces: Iterable[Any],
    writer: SideWriter,
    engine: Engine,
    *,
    total: int | None,
    shown: bool,
) -> None:
    with progress_bar(shown, MofNCompleteColumn()) as bar:
        task = bar.add_task(writer.folder.name, total=total, completed=len(writer))
        with closing(engine.map(function, pieces)) as results:
            for records in results:
                writer.add([record for record in records if read_record(record).key not in writer])
                bar.update(task, completed=len(writer))


def _pieces(shards: ShardSet, writer: SideWriter) -> Iterator[Piece]:
    """Samples that have no record yet; a piece of which a part has none is made again."""
    for name, samples, size in shards.one_sized():
        keys = shards.keys(split_of(name)[0])
        for start in range(0, samples, PIECE):
            piece = Piece(name, start, min(start + PIECE, samples), size)
            if not all(key in writer for key in keys[samples_of(shards, piece)].tolist()):
                yield piece


def _captions(shards: ShardSet, writer: SideWriter) -> Iterator[list[str]]:
    """Each caption that may be told and has no record yet, once."""
    waiting: dict[str, None] = {}
    seen: set[int] = set()
    for split, samples in shards.splits.items():
        for sample in range(samples):
            for caption in shards.captions(split, sample):
                if (key := _key(caption)) not in seen and key not in writer:
                    seen.add(key)
                    waiting[caption] = None
            if len(waiting) >= PIECE:
                yield list(waiting)
                waiting.clear()
    if waiting:
        yield list(waiting)


def _key(caption: str) -> int:
    return caption_key(caption.encode("utf-8", "replace"))


def _bytes(numbers: Tensor) -> bytes:
    """As bfloat16."""
    return numbers.to(torch.bfloat16).contiguous().cpu().view(torch.uint8).numpy().tobytes()


def _is_frozen(encoder: Mapping[str, Any] | None) -> bool:
    if encoder is None:
        return False
    if "encoders" in encoder:
        return all(map(_is_frozen, encoder["encoders"].values()))
    return not class_of(dict(encoder)).trainable
