import json
import struct
import zlib

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
    frame_parts,
    pack_message,
    unpack_message,
)

samples = st.tuples(st.integers(0, 2**64 - 1), st.none() | st.tuples(st.text(max_size=20), st.binary(max_size=50)))
counts = st.integers(0, 2**63 - 1)
# The kind and the values apart: built in a strategy, they would be type-checked there with random numbers.
messages = st.one_of(
    st.tuples(st.just(Hello), st.fixed_dictionaries({"version": st.integers(0, 2**16 - 1)})),
    st.tuples(
        st.just(StreamInfo),
        st.fixed_dictionaries(
            {
                "name": st.text(),
                "splits": st.dictionaries(st.text(), st.integers(0, 2**62 - 1), max_size=3),
                "digest": st.text(),
                "image_size_px": st.integers(0, 2**32 - 1),
                "caption_template": st.none() | st.text(),
                "codecs": st.lists(st.text(), max_size=3).map(tuple),
            }
        ),
    ),
    st.tuples(
        st.just(Read),
        st.fixed_dictionaries(
            {
                "id": st.integers(0, 2**32 - 1),
                "split": st.text(),
                "seed": st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
                "epoch": counts,
                "start": counts,
                "stop": counts,
                "codec": st.text(),
                "checksum": st.booleans(),
            }
        ),
    ),
    st.tuples(
        st.just(Error),
        st.fixed_dictionaries({"id": st.none() | st.integers(0, 2**32 - 1), "code": st.text(), "message": st.text()}),
    ),
)


def encode(chosen: list, *, request: int = 7, position: int = 40, last: bool = True, checksum: bool = True) -> bytes:
    keys = np.array([key for key, _ in chosen], dtype=np.uint64)
    captions = [content and content[0].encode() for _, content in chosen]
    images = [content and content[1] for _, content in chosen]
    return b"".join(
        frame_parts(keys, captions, images, request=request, position=position, last=last, checksum=checksum)
    )


EXAMPLE = encode([(1, ("a caption", b"image one")), (2, None), (3, ("", b""))])


@given(st.lists(samples, max_size=10), st.integers(0, 2**32 - 1), counts, st.booleans(), st.booleans())
def test_a_frame_comes_back_as_it_was(chosen: list, request: int, position: int, last: bool, checksum: bool):
    frame = decode_frame(encode(chosen, request=request, position=position, last=last, checksum=checksum))
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


def test_the_checksum_is_the_crc_32_of_zip_files():
    blank = EXAMPLE[:28] + bytes(4) + EXAMPLE[32:]
    assert EXAMPLE[28:32] == zlib.crc32(blank).to_bytes(4, "little")


def test_a_frame_without_checksum_says_so_and_keeps_its_shape():
    data = encode([(1, ("a caption", b"image one"))], checksum=False)
    assert data[28:32] == bytes(4)
    damaged = bytearray(data)
    damaged[-1] ^= 1
    assert bytes(decode_frame(damaged).images[0]) == b"image ond"
    for length in range(len(data)):
        with pytest.raises(WireError):
            decode_frame(data[:length])


def test_the_parts_of_a_frame_leave_images_where_they_are():
    keys, images = np.array([1, 2], np.uint64), [b"x" * 100, None]
    parts = frame_parts(keys, [b"one", None], images, request=7, position=40, last=True)
    assert decode_frame(b"".join(parts)).unreadable.tolist() == [False, True]
    assert parts[1] is images[0]


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
        frame_parts(np.zeros(2, np.uint64), [b"", b""], [half, half], request=0, position=0, last=True)
    with pytest.raises(WireError, match="over the limit"):
        decode_frame(bytes(MAX_FRAME_BYTES + 1))


@given(messages)
def test_a_control_message_comes_back_as_it_was(content: tuple[type, dict]):
    kind, values = content
    message: Message = kind(**values)
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
        {"codec": None},
        {"checksum": 1},
        {"checksum": None},
        {"more": 1},
    ],
)
def test_a_message_with_a_wrong_value_is_refused(change: dict):
    assert unpack_message(json.dumps(READ)) == Read(1, "train", 0, 0, 0, 1)
    with pytest.raises(WireError):
        unpack_message(json.dumps({**READ, **change}))
    with pytest.raises(WireError):
        unpack_message("[" * 100_000)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": -1}, "a read message has start=-1, not a whole number from 0 to 2^63 - 1"),
        ({"seed": "0"}, 'a read message has seed="0", not null or a whole number between -2^63 and 2^63'),
        ({"checksum": None}, "a read message has checksum=null, not true or false"),
        ({"codec": None}, "a read message has codec=null, not what a read message has there"),
    ],
)
def test_a_wrong_value_is_told_as_it_was_written(change: dict, said: str):
    with pytest.raises(WireError) as caught:
        unpack_message(json.dumps({**READ, **change}))
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("buckets", "shares"),
    [
        ({"16x16": 6, "12x16": 4}, {"16x16": 6}),
        ({"16x16": 6}, {"16x16": 6, "12x16": 4}),
        ({"16x16": 6, "12x16": 4}, {"16x16": 1, "12x16": 0}),
        ({"16x16": 6, "12x16": 4}, {"16x16": 2**31, "12x16": 1}),
        ({"16x16": 0}, {"16x16": 1}),
        ({"square": 6}, {"square": 6}),
        ({"16x16": 6}, 6),
        ({}, {"16x16": 6}),
    ],
)
def test_buckets_that_no_training_could_go_through_are_refused(buckets: dict, shares: object):
    info = {"type": "info", "name": "toy", "splits": {"train": 10}, "digest": "00", "image_size_px": 16}
    info |= {"caption_template": None, "max_count": 1, "buckets": {"train": {"16x16": 6, "12x16": 4}}}
    whole = unpack_message(json.dumps({**info, "bucket_shares": {"train": {"12x16": 3, "16x16": 1}}}))
    assert isinstance(whole, StreamInfo)
    with pytest.raises(WireError, match=r"bucket(s|_shares)"):
        unpack_message(json.dumps({**info, "buckets": {"train": buckets}, "bucket_shares": {"train": shares}}))
