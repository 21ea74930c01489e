"""The spool of `shards/build/out_folder.py`: what a killed build finished is there again, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_art.shards.build.encode import Encoded
from diffusion_art.shards.build.out_folder import Spool
from diffusion_art.sources.base import BadPicture, LeftOut, Note

SETTINGS = {"image_size_px": 64, "source": {"files": [["a", 1]]}}
CHUNKS = [
    [
        Encoded("00ff" * 4, b"\xff\xd8 one", "Étude \ud800", {"title": "x", "width": 3}),
        BadPicture("b", "torn"),
        LeftOut("c", "pictures of the test split"),
        Note("d", "texts read as Windows-1252"),
    ],
    [],
    [Encoded("ab" * 8, b"", "", {}), Encoded("cd" * 8, b"three" * 100, "c", {"date": ""}, "val")],
]


def replayed(path: Path, settings: dict = SETTINGS) -> list:
    spool = Spool(path, settings)
    chunks = list(spool.replay())
    spool.close()
    return chunks


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A spool with the three chunks."""
    spool = Spool(tmp_path / "spool", SETTINGS)
    assert list(spool.replay()) == []
    for chunk in CHUNKS:
        spool.append(chunk)
    spool.close()
    return tmp_path / "spool"


def test_chunks_come_back_as_they_were(path: Path) -> None:
    assert replayed(path) == CHUNKS
    assert replayed(path) == CHUNKS


def test_other_settings_start_anew(path: Path) -> None:
    assert replayed(path, SETTINGS | {"image_size_px": 32}) == []
    assert replayed(path) == []


def test_a_cut_anywhere_costs_only_the_torn_chunk(path: Path) -> None:
    whole = path.read_bytes()
    counts = []
    for size in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:size])
        chunks = replayed(path)
        assert chunks == CHUNKS[: len(chunks)]
        counts.append(len(chunks))
    assert counts == sorted(counts)
    assert set(counts) == {0, 1, 2} | ({3} if len(whole) % 7 == 0 else set())


def test_a_torn_end_is_cut_off_before_more_is_added(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    spool = Spool(path, SETTINGS)
    assert list(spool.replay()) == CHUNKS[:2]
    spool.append(CHUNKS[2])
    spool.close()
    assert path.read_bytes() == whole


def test_a_flipped_byte_is_noticed(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[-10] ^= 1
    path.write_bytes(damaged)
    assert replayed(path) == CHUNKS[:2]
