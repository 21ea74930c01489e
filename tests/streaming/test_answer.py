"""Answers without a socket: how they are cut into frames."""

from __future__ import annotations

from pathlib import Path

from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.answer import frames, samples_at
from diffusion_art.streaming.wire import Read, decode_frame
from tests.streaming.pictures import picture_caption, picture_key, write_pictures


def test_frames_of_several_samples_have_a_mebibyte_at_most(tmp_path: Path):
    """Which is what a client made with Python's `websockets` takes by default: 64 samples here have as much in bytes,
    and header and lengths come on top.
    """
    large = {i: bytes(2**14 - len(picture_caption(i).encode())) for i in range(128)} | {100: bytes(2**20 + 1)}
    write_pictures(tmp_path, train=128, val=1, damaged=large)
    shards, read = ShardSet.open(tmp_path), Read(7, "train", None, 0, 0, 128)
    sent = [b"".join(frame) for frame in frames(shards, read, samples_at(shards, read))]
    decoded = [decode_frame(frame) for frame in sent]
    assert [int(key) for frame in decoded for key in frame.keys] == [int(picture_key(i), 16) for i in range(128)]
    assert all(len(frame) <= 2**20 or len(told.keys) == 1 for frame, told in zip(sent, decoded, strict=True))
    assert [told.last for told in decoded] == [False] * (len(decoded) - 1) + [True]
    assert max(len(frame) for frame in sent) > 2**20  # that of the one that is larger by itself
