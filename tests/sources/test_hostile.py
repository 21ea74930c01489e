"""Tars of an enemy: nothing in them runs, nothing outside is read, and what cannot be used is named and left out."""

from __future__ import annotations

import io
import random
import tarfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from diffusion_art.errors import UserError
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.build.tally import BAD_PICTURES_FILE
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sources.base import BadPicture
from diffusion_art.sources.detect import open_source
from diffusion_art.sources.tars.samples import MAX_HEADER_BYTES, headers
from diffusion_art.sources.tars.tars import Tars
from tests.fakes_sources import encoded, picture
from tests.sources.hostile import add, write_hostile_tar


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tar of an enemy; beside it a secret that the tar is after, and no canary."""
    secret = tmp_path / "outside" / "secret.jpg"
    secret.parent.mkdir()
    secret.write_bytes(encoded(picture(9)))
    (tmp_path / "tars").mkdir()
    write_hostile_tar(tmp_path / "tars" / "a.tar", canary=tmp_path / "canary", secret=secret)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tars"


def test_a_hostile_tar_builds_to_its_good_samples_and_does_nothing_else(hostile: Path, tmp_path: Path):
    build_shards(open_source(hostile), tmp_path / "out", image_size_px=16, val_fraction=0.0, progress=False, workers=1)
    shards = ShardSet.open(tmp_path / "out")
    captions = [shards.read("train", i).caption for i in range(shards.splits["train"])]
    assert "the only good one" in captions
    assert len(captions) == 2  # and once the picture that was packed under four names, which are only names
    names = {
        line.split("\t")[0].split(":")[0] for line in (tmp_path / "out" / BAD_PICTURES_FILE).read_text().split("\n")
    }
    for key in ("pickled", "huge", "script", "markup"):
        assert any(key in name for name in names), (key, names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "outside", "tars"]
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["secret.jpg"]


def test_a_path_is_never_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for path in ("pipe:touch canary", "|touch canary", "http://127.0.0.1:9/a.tar", "$(touch canary)"):
        with pytest.raises(UserError, match="there is no"):
            open_source(path)
        with pytest.raises(UserError, match="there is no"):
            Tars(path)
        if not path.startswith("http"):  # shards may lie at an address
            with pytest.raises(UserError, match="there is no shard folder"):
                ShardSet.open(path)
    assert list(tmp_path.iterdir()) == []


def raw_header(name: bytes, *, kind: bytes, size_field: bytes) -> bytes:
    header = bytearray(512)
    header[: len(name)] = name
    header[100:108], header[108:116], header[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    header[124:136] = size_field
    header[136:148], header[148:156] = b"00000000000\0", b" " * 8
    header[156:157], header[257:265] = kind, b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"S", b"0"])
@pytest.mark.parametrize(
    "size_field",
    [
        b"77777777777\0",  # 8 GiB
        b"\x80" + (2**62).to_bytes(11, "big"),
        b"\xff" + (2**88 - 512).to_bytes(11, "big"),  # -512: back to this very header, for ever
        b"\xff" * 12,
    ],
)
def test_a_header_that_lies_about_its_size_ends_the_reading(tmp_path: Path, kind: bytes, size_field: bytes):
    file = tmp_path / "a.tar"
    file.write_bytes(raw_header(b"0.jpg", kind=kind, size_field=size_field) + bytes(4096))
    sparse = kind == b"S" and size_field == b"\xff" * 12  # -1 stays in this block, and such members are never read
    with nullcontext() if sparse else pytest.raises(UserError, match=r"a\.tar is no whole tar"):
        assert all(member.issparse() for member in headers(file))


def test_a_long_header_is_not_taken_into_memory(tmp_path: Path):
    """A sparse file stands for a gigabyte of extended attributes."""
    file = tmp_path / "a.tar"
    with file.open("wb") as opened:
        opened.write(raw_header(b"0.jpg", kind=b"x", size_field=b"%011o\0" % 2**30))
        opened.truncate(2**30 + 4096)
    with pytest.raises(UserError, match=rf"a header of {2**30} bytes, at most {MAX_HEADER_BYTES}"):
        list(headers(file))


def test_headers_that_describe_headers_for_ever_end_the_reading(tmp_path: Path):
    file = tmp_path / "a.tar"
    record = b"9 path=a\n"
    block = raw_header(b"p", kind=b"x", size_field=b"%011o\0" % len(record)) + record.ljust(512, b"\0")
    file.write_bytes(block * 3000)
    with pytest.raises(UserError, match=r"a\.tar is no whole tar"):
        list(headers(file))


def test_any_damage_is_one_sentence_or_other_pictures(tmp_path: Path):
    """Three thousand tars with a few bytes changed: a UserError, bad pictures, or good ones; nothing else."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(2):
            add(tar, f"{number}é{'long' * 30}.jpg", encoded(picture(number)))
            add(tar, f"{number}é{'long' * 30}.json", b'{"title": "T"}')
    whole, rng, outcomes = buffer.getvalue(), random.Random(0), set()
    starts = [i for i in range(0, len(whole), 512) if whole[i + 257 : i + 262] == b"ustar"]
    for number in range(600):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            place = rng.choice(starts) + rng.choice([*range(100), *range(124, 136), *range(156, 258)])
            damaged[place] = rng.choice([*b"0127 \0=\n/.xgLKS", rng.randrange(256)])
        for start in starts:  # make the checksums right again, or nothing behind them would be reached
            header = damaged[start : start + 512]
            header[148:156] = b" " * 8
            damaged[start + 148 : start + 156] = b"%06o\0 " % sum(header)
        file = tmp_path / f"{number}.tar"
        file.write_bytes(damaged)
        try:
            source = Tars(file)
            for chunk in source.chunks():
                outcomes.update(type(item) for item in source.pictures(chunk))
        except UserError:
            outcomes.add(UserError)
        file.unlink()
    assert outcomes >= {UserError}
    assert outcomes <= {UserError, BadPicture, type(next(iter(_good(tmp_path, whole))))}


def _good(folder: Path, content: bytes) -> list:
    (folder / "good.tar").write_bytes(content)
    source = Tars(folder / "good.tar")
    return [item for chunk in source.chunks() for item in source.pictures(chunk)]
