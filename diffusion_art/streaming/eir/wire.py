"""The messages of EIR's streaming protocol 1.0, as a server reads and writes them. Opens nothing.

A SAMPLE is exactly

    {"inputs": {"image": B64, "caption": "..."}, "target_labels": {"image": {"image": B64}}, "sample_id": "..."}

with the picture twice, as input and as target: it is encoded once. Ids are our keys, 16 hex digits, since EIR's client
names files after them.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import orjson
import pybase64
import simplejpeg

VERSION = "1.0"
INFO = {
    "inputs": {"image": {"type": "image", "shape": None}, "caption": {"type": "sequence", "shape": None}},
    "outputs": {"image": {"type": "image", "shape": None}},
}
TERMINATE = "terminate"  # instead of a sample: the pass is over

Buffer = bytes | memoryview


class Refusal(Exception):
    """A request that gets an error for an answer."""


def encode_sample(key: int, caption: Buffer | None, image: Buffer) -> tuple[bytes, ...]:
    """One SAMPLE in parts to be sent one after the other, and a comma. The picture is one object in two places.

    Only the caption needs escaping; base64 has no character that JSON minds.
    """
    encoded = pybase64.b64encode(image)
    text = orjson.dumps(str(caption or b"", "utf-8", "replace"))
    return (
        b'{"inputs":{"image":"',
        encoded,
        b'","caption":%b},"target_labels":{"image":{"image":"' % text,
        encoded,
        b'"}},"sample_id":"%016x"},' % key,
    )


def encode_data(samples: Iterable[tuple[bytes, ...]]) -> list[bytes]:
    """The message of these samples, one or more, in parts."""
    parts = [b'{"type":"data","payload":[', *chain.from_iterable(samples)]
    parts[-1] = parts[-1][:-1] + b"]}"
    return parts


def is_whole(image: Buffer) -> bool:
    """Whether Pillow, in a client that stops at the first picture it cannot read, will read this JPEG."""
    if image[-2:] != b"\xff\xd9":
        return False
    try:
        simplejpeg.decode_jpeg_header(image)
    except ValueError:
        return False
    return True


def parse(text: str | bytes) -> dict[str, Any] | str:
    """A request, or what is wrong with it."""
    if not isinstance(text, str):
        return "a message is JSON text, this one is binary"
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return f"a message is not JSON: {error}"
    if not isinstance(request, dict):
        return f"a message is a JSON object, this one is a {type(request).__name__}"
    return request


def batch_size(payload: Any) -> int:
    size = payload.get("batch_size") if isinstance(payload, dict) else None
    if type(size) is not int or size < 1:
        raise Refusal(f'getData needs "payload": {{"batch_size": N}} with N of at least 1, not {str(payload)[:50]}')
    return size


def validation_ids(payload: Any) -> list[str]:
    ids = payload.get("validation_ids") if isinstance(payload, dict) else None
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise Refusal('setValidationIds needs "payload": {"validation_ids": [...]} with strings')
    return ids
