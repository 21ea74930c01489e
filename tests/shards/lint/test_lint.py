"""`lint` finds each kind of fault, names it, and finds nothing in sound shards."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffusion_art.errors import UserError
from diffusion_art.shards.build.encode import split_of
from diffusion_art.shards.lint.lint import Report, lint
from diffusion_art.shards.lint.shards import NAMED, RULES, Findings
from diffusion_art.shards.reader import ShardSet, ShardWriter, write_manifest
from tests.fakes_sources import encoded, picture
from tests.sources.hostile import jpeg_of, write_hostile_tar
from tests.sources.tars.test_tars import samples, write_tar

GOOD = [encoded(picture(number, width=16, height=16)) for number in range(40)]


def write(folder: Path, rows: list[tuple[str, bytes, str, dict]], *, split: str = "train", **manifest: object) -> Path:
    """A folder of 16 px with these (key, image, caption, metadata), as a careless program might write it."""
    with ShardWriter(folder, split=split, max_samples=3) as writer:
        for key, image, caption, metadata in rows:
            writer.add(key, image, caption, metadata)
        shards = {split: writer.close()}
    settings = {"name": "x", "image_size_px": 16, "caption_template": None, **manifest}
    write_manifest(folder, shards=shards, **settings)  # type: ignore[arg-type]
    return folder


def rules(report: Report) -> dict[str, int]:
    return dict(report.findings.counts)


@pytest.fixture
def copy(painter_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(painter_shards, tmp_path / "copy"))


@pytest.mark.parametrize("workers", [1, 2])
def test_sound_shards_have_no_fault(painter_shards: Path, tmp_path: Path, workers: int):
    report = lint(painter_shards, workers=workers)
    assert rules(report) == {}
    assert (report.samples, report.files) == (150, 2)
    tars = write_tar(tmp_path / "a.tar", samples(range(5)))
    assert rules(lint(tars)) == {}


def test_each_bad_sample_is_found_by_its_rule(tmp_path: Path):
    rows = [
        (f"{1:016x}", GOOD[0], "fine", {}),
        (f"{2:016x}", GOOD[0], "a twin", {}),
        (f"{3:016x}", GOOD[1], " ", {}),
        (f"{4:016x}", b"no picture", "x", {}),
        (f"{5:016x}", GOOD[2][:-40], "cut", {}),
        (f"{6:016x}", encoded(picture(3)), "too large", {}),
        (f"{7:016x}", jpeg_of(20_000, 10_000), "a bomb", {}),
        (f"{9:016x}", b"", "nothing", {}),
    ]
    report = lint(write(tmp_path / "bad", rows), workers=1)
    assert rules(report) == {"twin": 1, "caption": 1, "picture": 4, "size": 1}
    assert report.findings.named["twin"] == [(f"bad {1:016x}", "is one of 2 in train with the same bytes")]
    wheres = [where for where, _ in report.findings.named["picture"]]
    assert wheres == [f"bad {n:016x}" for n in (4, 5, 7, 9)]
    assert "limit" in dict(report.findings.named["picture"])[f"bad {7:016x}"]
    assert (report.findings.errors, report.findings.warnings) == (5, 2)
    quick = lint(tmp_path / "bad", pictures=False, workers=1)
    assert rules(quick) == {"twin": 1, "caption": 1}


def damage_in_place(file: Path, place: int, content: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
        opened.write(content)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda d: (d / "notes.txt").write_text("mine"), {"stray"}),
        (lambda d: (d / "train-000009.tar").write_bytes(bytes(1024)), {"stray"}),
        (lambda d: damage_in_place(d / "train-000000.tar", 600, b"\x99\x99\x99\x99"), {"checksum", "picture"}),
        (lambda d: damage_in_place(d / "train-000000.tar", 0, b"g"), {"checksum", "layout"}),
        (lambda d: damage_in_place(d / "index-val.npy", -48, b"\xff"), {"checksum", "layout"}),
        (lambda d: os.truncate(d / "train-000000.tar", 2048), {"folder"}),
        (lambda d: (d / "manifest.json").write_text("{"), {"folder"}),
    ],
)
def test_each_damage_of_a_file_is_found(copy: Path, damage: Callable[[Path], object], expected: set[str]):
    damage(copy)
    found = set(rules(lint(copy, workers=1)))
    assert expected <= found
    assert found - expected <= {"metadata", "text", "caption", "twin"}  # what the same bytes may break besides


def test_text_that_is_no_utf8_and_metadata_that_is_no_json_are_found(tmp_path: Path):
    rows = [(f"{1:016x}", GOOD[0], "caption", {"title": "T"}), (f"{2:016x}", GOOD[1], "fine", {"x": 1})]
    folder = write(tmp_path / "x", rows)
    tar = folder / "train-000000.tar"
    content = tar.read_bytes()
    for old, new in {b"caption": b"c\xffption", b'{"title": "T"}': b'{"title": "T"]', b'{"x": 1}': b'["x", 1]'}.items():
        content = content.replace(old, new)
    tar.write_bytes(content)
    assert rules(lint(folder, workers=1)) == {"checksum": 1, "text": 1, "metadata": 2}


def test_pictures_in_the_wrong_split_are_found(tmp_path: Path):
    keys = [f"{n:016x}" for n in range(40)]
    rows = [(key, image, "x", {}) for key, image in zip(keys, GOOD, strict=True)]
    settings = {"settings": {"val_fraction": 0.3}}
    report = lint(write(tmp_path / "x", rows, extra=settings), workers=1)
    assert rules(report) == {"split": sum(split_of(key, val_fraction=0.3) == "val" for key in keys)}


def test_keys_that_come_twice_are_found(tmp_path: Path):
    """The writer refuses them, so this manifest is another program's."""
    folder = write(tmp_path / "x", [(f"{1:016x}", GOOD[0], "x", {}), (f"{2:016x}", GOOD[1], "y", {})])
    tar, index = folder / "train-000000.tar", folder / "index-train.npy"
    name = f"{2:016x}.".encode()
    content = bytearray(tar.read_bytes())
    for start in range(0, len(content), 512):
        if content[start : start + 17] == name:
            content[start + 15] -= 1
            header = content[start : start + 512]
            header[148:156] = b" " * 8
            content[start + 148 : start + 155] = b"%06o\0" % sum(header)
    tar.write_bytes(content)
    np.lib.format.open_memmap(index, mode="r+")["key"][1] = 1
    assert [f"{key:x}" for key in ShardSet.open(folder).keys("train").tolist()] == ["1", "1"]
    found = lint(folder, workers=1).findings
    assert found.named["key"] == [(f"x {1:016x}", "is the key of 2 samples")]


def test_a_picture_in_both_splits_is_found_within_a_folder_and_across(tmp_path: Path):
    shards = {}
    for split, rows in {"train": [(1, GOOD[0]), (2, GOOD[1])], "val": [(3, GOOD[1])]}.items():
        with ShardWriter(tmp_path / "a", split=split) as writer:
            for key, image in rows:
                writer.add(f"{key:016x}", image, "x", {})
            shards[split] = writer.close()
    write_manifest(tmp_path / "a", name="a", image_size_px=16, caption_template=None, shards=shards)
    assert rules(lint(tmp_path / "a", workers=1)) == {"leak": 1}
    other = write(tmp_path / "b", [(f"{3:016x}", GOOD[2], "x", {})])
    found = lint([tmp_path / "a", {"path": other}], workers=1).findings
    assert ("a", f"1 pictures of its val lie in train of b, such as {3:016x}") in found.named["leak"]


def test_hostile_tars_are_judged_and_nothing_of_theirs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tars").mkdir()
    write_hostile_tar(tmp_path / "tars" / "a.tar", canary=tmp_path / "canary", secret=tmp_path / "secret.jpg")
    report = lint("tars")
    assert rules(report) == {"code": 5, "path": 3, "link": 4, "picture": 4}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tars"]
    (tmp_path / "tars" / "b.tar").write_bytes(b"no tar at all" * 100)
    again = lint("tars", workers=2)
    assert rules(again) == {**rules(report), "layout": 1}
    assert not (tmp_path / "canary").exists()


def test_a_tar_that_was_cut_between_two_members_is_told_of(tmp_path: Path):
    file = tmp_path / "0.tar"
    write_tar(file, [(f"{number}.jpg", GOOD[number]) for number in range(2)])
    assert rules(lint(file)) == {}
    os.truncate(file, -(-len(file.read_bytes().rstrip(b"\0")) // 512) * 512)
    report = lint(file)
    assert rules(report) == {"end": 1}
    assert (report.findings.errors, report.samples) == (0, 2)


def test_a_path_without_shards_or_tars_is_refused(tmp_path: Path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"neither shards nor tars.*diffusion_art\.prepare"):
            lint(path)


def test_findings_count_all_and_name_the_first():
    one, other = Findings(), Findings()
    for number in range(NAMED - 5):
        one.add("picture", str(number), "bad")
    for number in range(100):
        other.add("picture", f"other {number}", "bad")
    other.add("stray", "x", "y", count=7)
    one.merge(other)
    assert one.counts == {"picture": NAMED + 95, "stray": 7}
    assert len(one.named["picture"]) == NAMED
    assert (one.errors, one.warnings) == (NAMED + 95, 7)
    with pytest.raises(KeyError):
        one.add("no rule", "x", "y")
    plain = json.loads(json.dumps(Report(findings=one).plain()))
    assert plain["findings"]["stray"]["level"] == "warning"
    assert plain["findings"]["picture"]["meaning"] == RULES["picture"][0]
