import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_art.streaming.wire import (
    MAX_FRAME_BYTES,
    Error,
    Hello,
    Message,
    Read,
    StreamInfo,
    WireError,
    decode_frame,
    encode_frame,
    pack_message,
    unpack_message,
)

samples = st.tuples(st.integers(0, 2**64 - 1), st.none() | st.tuples(st.text(max_size=20), st.binary(max_size=50)))
counts = st.integers(0, 2**63 - 1)
messages = st.one_of(
    st.builds(Hello, version=st.integers(0, 2**16 - 1)),
    st.builds(
        StreamInfo,
        name=st.text(),
        splits=st.dictionaries(st.text(), st.integers(0, 2**62 - 1), max_size=3),
        digest=st.text(),
        image_size_px=st.integers(0, 2**32 - 1),
        caption_template=st.none() | st.text(),
    ),
    st.builds(
        Read,
        id=st.integers(0, 2**32 - 1),
        split=st.text(),
        seed=st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
        epoch=counts,
        start=counts,
        stop=counts,
    ),
    st.builds(Error, id=st.none() | st.integers(0, 2**32 - 1), code=st.text(), message=st.text()),
)


def encode(chosen: list, *, request: int = 7, position: int = 40, last: bool = True) -> bytes:
    keys = np.array([key for key, _ in chosen], dtype=np.uint64)
    captions = [content and content[0].encode() for _, content in chosen]
    images = [content and content[1] for _, content in chosen]
    return bytes(encode_frame(keys, captions, images, request=request, position=position, last=last))


EXAMPLE = encode([(1, ("a caption", b"image one")), (2, None), (3, ("", b""))])


@given(st.lists(samples, max_size=10), st.integers(0, 2**32 - 1), counts, st.booleans())
def test_a_frame_comes_back_as_it_was(chosen: list, request: int, position: int, last: bool):
    frame = decode_frame(encode(chosen, request=request, position=position, last=last))
    assert (frame.request, frame.position, frame.last) == (request, position, last)
    assert frame.keys.tolist() == [key for key, _ in chosen]
    assert frame.unreadable.tolist() == [content is None for _, content in chosen]
    assert [str(caption, "utf-8") for caption in frame.captions] == [c[0] if c else "" for _, c in chosen]
    assert [bytes(image) for image in frame.images] == [c[1] if c else b"" for _, c in chosen]


def test_decoding_copies_nothing():
    data = encode([(1, ("caption", b"x" * 1000))])
    frame = decode_frame(data)
    whole = np.frombuffer(data, np.uint8)
    for part in (
        frame.keys,
        np.frombuffer(frame.images[0], np.uint8),
        np.frombuffer(frame.captions[0], np.uint8),
    ):
        assert np.shares_memory(part, whole)
    assert frame.images[0].readonly


def test_every_truncation_is_refused():
    for length in range(len(EXAMPLE)):
        with pytest.raises(WireError):
            decode_frame(EXAMPLE[:length])
    with pytest.raises(WireError, match="says that it has"):
        decode_frame(EXAMPLE + b"\0")


def test_every_flipped_bit_is_refused():
    for bit in range(8 * len(EXAMPLE)):
        damaged = bytearray(EXAMPLE)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            decode_frame(damaged)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes):
    with pytest.raises(WireError):
        decode_frame(data)


@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**16 - 1),
)
def test_a_frame_whose_checksum_is_right_and_content_is_not_is_refused(lengths: list, count: int, flags: int):
    """What a hostile or broken server might compute: lengths that reach past the frame, impossible counts."""
    import zlib

    body = b"\0" * 16 + struct.pack("<4I", *lengths) + b"\0\0" + b"abc"
    header = struct.pack("<4sHHIIQI", b"dart", 2, flags, 0, count, 0, len(body))
    frame = header + struct.pack("<I", zlib.crc32(body, zlib.crc32(header + b"\0\0\0\0"))) + body
    if count == 2 and flags <= 1 and sum(lengths) == 3:
        assert len(decode_frame(frame).keys) == 2
    else:
        with pytest.raises(WireError):
            decode_frame(frame)


def test_oversized_frames_are_refused_on_both_sides():
    half = bytes(MAX_FRAME_BYTES // 2)
    with pytest.raises(WireError, match="over the limit"):
        encode_frame(np.zeros(2, np.uint64), [b"", b""], [half, half], request=0, position=0, last=True)
    with pytest.raises(WireError, match="over the limit"):
        decode_frame(bytes(MAX_FRAME_BYTES + 1))


@given(messages)
def test_a_control_message_comes_back_as_it_was(message: Message):
    text = pack_message(message)
    assert "\n" not in text
    assert unpack_message(text) == message


@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_arbitrary_text_is_refused(text: str):
    with pytest.raises(WireError):
        unpack_message(text)


READ = {"type": "read", "id": 1, "split": "train", "seed": 0, "epoch": 0, "start": 0, "stop": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"type": "nonsense"},
        {"type": ["read"]},
        {"id": None},
        {"id": True},
        {"id": 2**32},
        {"id": -1},
        {"start": 0.5},
        {"stop": "1"},
        {"epoch": 2**63},
        {"seed": 2**63},
        {"seed": "0"},
        {"split": 3},
        {"more": 1},
    ],
)
def test_a_message_with_a_wrong_value_is_refused(change: dict):
    assert unpack_message(json.dumps(READ)) == Read(1, "train", 0, 0, 0, 1)
    with pytest.raises(WireError):
        unpack_message(json.dumps({**READ, **change}))
    with pytest.raises(WireError):
        unpack_message("[" * 100_000)
