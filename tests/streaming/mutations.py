"""Bytes that are nearly right: messages, frames and WebSocket frames with something wrong in them."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from diffusion_art.shards.mixture import open_shards
from diffusion_art.streaming.answer import frames, samples_at
from diffusion_art.streaming.wire import Hello, Read, pack_message
from tests.streaming import raw

HEADER = struct.Struct("<4sHHIIQII")  # of a data frame: magic, version, flags, request, count, position, body, CRC
_ODD_VALUES: list[Any] = [None, True, -1, 0.5, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, "", "0", "\0", "\ud800", [], {}]
_ODD_VALUES += [[[[]]], {"a": [1]}, "train" * 5000]

V2_MESSAGES = [
    pack_message(Hello()),
    pack_message(Read(1, "train", 0, 0, 0, 16)),
    pack_message(Read(2, "val", None, 3, 2, 9)),
]
V1_MESSAGES = [
    '{"type":"handshake","version":"1.0","worker_id":0}',
    '{"type":"getInfo"}',
    '{"type":"getData","payload":{"batch_size":2}}',
    '{"type":"heartbeat"}',
    '{"type":"status","payload":{}}',
    '{"type":"reset","payload":{}}',
    '{"type":"setValidationIds","payload":{"validation_ids":["0000000000000001"]}}',
]

INFO = json.dumps(
    {
        "type": "info",
        "name": "toy",
        "splits": {"train": 100},
        "digest": "d",
        "image_size_px": 16,
        "caption_template": None,
        "max_count": 4096,
        "version": 2,
        "codecs": ["jpeg"],
    }
)
V1_ANSWERS = [
    '{"type": "handshake", "version": "1.0"}',
    '{"type": "info", "payload": {"inputs": {"image": {"type": "image", "shape": null}, "caption": {"type": "sequence",'
    ' "shape": null}}, "outputs": {"image": {"type": "image", "shape": null}}}}',
    '{"type": "data", "payload": [{"inputs": {"image": "aGk=", "caption": "c"}, "target_labels": {"image": {"image": '
    '"aGk="}}, "sample_id": "1"}, {"inputs": {"image": "aGk=", "caption": "d"}, "target_labels": {"image": {"image": '
    '"aGk="}}, "sample_id": "2"}]}',
    '{"type": "data", "payload": ["terminate"]}',
    '{"type": "error", "payload": {"message": "m"}}',
    '{"type": "heartbeat"}',
]


def bent(chance: random.Random, data: bytes) -> bytes:
    """`data` with one to four bytes, or stretches of bytes, changed."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        upto = min(len(changed), at + chance.choice((1, 1, 1, 4, 16, 200)))
        match chance.randrange(5):
            case 0:
                changed[at:upto] = chance.randbytes(upto - at)
            case 1:
                del changed[at:upto]
            case 2:
                changed[at:at] = changed[at:upto]
            case 3:
                changed[at:at] = chance.randbytes(chance.choice((1, 4, 32)))
            case 4 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


def odd_message(chance: random.Random, examples: list[str]) -> bytes:
    """Text that is nearly, or not at all, one of `examples`."""
    text = chance.choice(examples)
    kind = chance.randrange(4)
    if kind == 0:
        return bent(chance, text.encode())
    if kind == 1:
        return chance.randbytes(chance.choice((0, 1, 20, 500)))
    content = json.loads(text)
    place = chance.choice(list(insides(content)))
    key = chance.choice([*place, "more"] if isinstance(place, dict) else [*range(len(place))])
    if kind == 3:
        place[key] = chance.choice(_ODD_VALUES)
    elif key != "more":
        del place[key]
    return json.dumps(content).encode()


def insides(content: Any) -> Iterator[dict | list]:
    """`content` and all objects and lists in it that are not empty."""
    if isinstance(content, dict | list) and content:
        yield content
        for inner in content.values() if isinstance(content, dict) else content:
            yield from insides(inner)


def odd_frames(chance: random.Random, examples: list[str], *, masked: bool) -> bytes:
    """A few bytes on an open WebSocket, of which something is wrong: the message, or the frame around it."""
    payload = odd_message(chance, examples)
    frame = partial(raw.message, masked=masked)
    match chance.randrange(9):
        case 0:
            return frame(raw.BINARY, payload)
        case 1:
            return frame(chance.choice((3, 7, 11, 15)), payload)
        case 2:
            return frame(raw.TEXT, payload, reserved=chance.randrange(1, 8))
        case 3:
            return raw.message(raw.TEXT, payload, masked=not masked)
        case 4:
            return frame(raw.TEXT, payload, length=chance.choice((2**16, 2**32, 2**62, 2**63, 2**64 - 1)))
        case 5:
            return frame(raw.CONTINUATION, payload) + frame(raw.TEXT, payload, fin=False)
        case 6:
            return frame(chance.choice((raw.PING, raw.CLOSE)), payload * 3, fin=chance.random() < 0.5)
        case 7:
            return bent(chance, frame(raw.TEXT, payload))
        case _:
            return frame(raw.TEXT, payload)


def real_frames(painter_shards: Path) -> list[bytes]:
    """Large, small and of one sample; one without a checksum."""
    shards = open_shards(painter_shards)
    reads = [
        Read(3, "train", 0, 0, 0, 100),
        Read(4, "val", None, 0, 2, 9),
        Read(5, "train", 7, 2, 99, 100),
        Read(6, "train", 7, 2, 40, 44, checksum=False),
    ]
    return [b"".join(frame) for read in reads for frame in frames(shards, read, samples_at(shards, read))]


def resealed(frame: bytes) -> bytes:
    """`frame` with the checksum that it ought to have, as a broken or hostile server would send it."""
    blank = frame[: HEADER.size - 4] + bytes(4) + frame[HEADER.size :]
    return blank[: HEADER.size - 4] + struct.pack("<I", zlib.crc32(blank)) + blank[HEADER.size :]


def unsealed(frame: bytes) -> bytes:
    """`frame` as one that says that it has no checksum."""
    return frame[:6] + bytes([frame[6] | 2]) + frame[7 : HEADER.size - 4] + bytes(4) + frame[HEADER.size :]
