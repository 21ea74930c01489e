"""`sources/tars/tars.py`: WebDataset tars, friendly and hostile."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from diffusion_art.captions.captioner import ART_TEMPLATE
from diffusion_art.errors import UserError
from diffusion_art.sources.base import BadPicture, Item, LeftOut, Note, Picture, Source
from diffusion_art.sources.paths.splits import TEST_SPLIT
from diffusion_art.sources.tables.texts import CP1252_NOTE
from diffusion_art.sources.tars.captions import NOT_READ
from diffusion_art.sources.tars.tars import Tars
from tests.fakes_sources import captions_of, encoded, picture, write_files


def write_tar(file: Path, members: list[tuple[str, bytes]], *, mode: str = "w") -> Path:
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def sample(number: int) -> list[tuple[str, bytes]]:
    columns = {"title": f"T{number}", "artist": "A", "date": 1900 + number, "nested": {"x": 1}, "none": None}
    return [
        (f"{number:04d}.jpg", encoded(picture(number))),
        (f"{number:04d}.json", json.dumps(columns).encode()),
    ]


def samples(numbers: Iterable[int]) -> list[tuple[str, bytes]]:
    return [member for number in numbers for member in sample(number)]


def read(source: Tars) -> list[Item]:
    source = pickle.loads(pickle.dumps(source))
    return [item for chunk in source.chunks() for item in source.pictures(chunk)]


def test_samples_of_several_tars_come_in_order(tmp_path: Path) -> None:
    write_tar(tmp_path / "b.tar", samples([300, 301]))
    write_tar(tmp_path / "a.tar", samples(range(140)))
    source = Tars(tmp_path, name="mine")
    assert isinstance(source, Source)
    assert (source.name, source.caption_template) == ("mine", "{artist} / {title} / {date}")
    assert [len(chunk.entries) for chunk in source.chunks()] == [128, 12, 2]
    items = read(source)
    assert [item.columns["title"] for item in items] == [f"T{n}" for n in (*range(140), 300, 301)]
    assert items[0].image == items[0].identity == encoded(picture(0))
    assert items[0].columns == {"title": "T0", "artist": "A", "date": "1900", "filename": "0000.jpg"}
    assert items[-1].name == "b.tar 0301"


def test_txt_captions_folders_and_other_members(tmp_path: Path) -> None:
    members = [
        ("van.gogh/0001.PNG", encoded(picture(0), "PNG")),
        ("van.gogh/0001.cls", b"7"),
        ("van.gogh/0001.pkl", b"cos\nsystem\n(S'touch pwned'\ntR."),
        ("van.gogh/0001.txt", "Blüten".encode()),
        ("van.gogh/0002.txt", b"no image"),
    ]
    first, second = read(Tars(write_tar(tmp_path / "a.tar", members)))
    assert isinstance(first, Picture)
    assert first.columns == {"caption": "Blüten", "filename": "van.gogh/0001.png"}
    assert second == BadPicture("a.tar van.gogh/0002", "no image among its members (txt)")


def test_hostile_members_lead_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(encoded(picture(9)))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (
            ("0.jpg", tarfile.SYMTYPE),
            ("1.jpg", tarfile.LNKTYPE),
            ("2.jpg", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            tar.addfile(info)
        info = tarfile.TarInfo("../../escape.jpg")
        info.size = len(secret.read_bytes())
        tar.addfile(info, io.BytesIO(secret.read_bytes()))
    (tmp_path / "cwd").mkdir()
    items = read(Tars(tmp_path / "a.tar"))
    assert [item.name for item in items] == ["a.tar ../../escape"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "cwd", "secret.jpg"]


@pytest.mark.parametrize("text", [b"{broken", b"[" * 100_000, b" " * (2**20 + 1)])
def test_a_json_that_cannot_be_read_makes_a_bad_picture(tmp_path: Path, text: bytes) -> None:
    (item,) = read(Tars(write_tar(tmp_path / "a.tar", [("0.jpg", encoded(picture(0))), ("0.json", text)])))
    assert isinstance(item, BadPicture)


@pytest.mark.parametrize("cut", [1, 512, 700, 1536, 2100])
def test_a_truncated_tar_stops_with_its_name(tmp_path: Path, cut: int) -> None:
    """Cut in the content or the header of the last member; a missing end mark alone is no harm."""
    whole = write_tar(tmp_path / "a.tar", samples(range(4))).read_bytes()
    content = whole.rstrip(b"\0")
    with pytest.raises(UserError, match=r"b\.tar is no whole tar"):
        read(Tars(_written(tmp_path / "b.tar", content[:-cut])))
    padded = content + b"\0" * (-len(content) % 512)
    assert len(read(Tars(_written(tmp_path / "c.tar", padded)))) == 4


def test_no_tar_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no"):
        Tars(tmp_path / "nowhere.tar")
    with pytest.raises(UserError, match=r"holds no \.tar file"):
        Tars(tmp_path)
    with pytest.raises(UserError, match="is no whole tar"):
        Tars(_written(tmp_path / "a.tar", b"hello" * 1000))
    with pytest.raises(UserError, match="is compressed"):
        Tars(write_tar(tmp_path / "b.tar", sample(0), mode="w:gz"))


def test_columns_like_wikiarts_give_the_art_template(tmp_path: Path) -> None:
    columns = dict.fromkeys(("title", "artist", "style", "genre", "date"), "x")
    members = [("0.jpg", encoded(picture(0))), ("0.json", json.dumps(columns).encode())]
    assert Tars(write_tar(tmp_path / "a.tar", members)).caption_template == ART_TEMPLATE


def _written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def test_members_stand_in_any_order(tmp_path: Path) -> None:
    members = samples(range(3))
    members = [member for member in members if member[0].endswith("jpg")] + members[1::2][::-1]
    items = read(Tars(write_tar(tmp_path / "a.tar", members)))
    assert [item.columns["title"] for item in items if isinstance(item, Picture)] == ["T0", "T1", "T2"]


def test_dots_in_names_hide_no_picture(tmp_path: Path) -> None:
    names = ("van.gogh.jpg", "van.eyck.JPG", "0.front.png", "0.back.png", "1.jfif")
    members = [(name, encoded(picture(number))) for number, name in enumerate(names)] + [("0.txt", b"a box")]
    source = Tars(write_tar(tmp_path / "a.tar", members))
    assert captions_of(source) == {
        "a.tar van.eyck": "",
        "a.tar van.gogh": "",
        "a.tar 0.back": "a box",
        "a.tar 0.front": "a box",
        "a.tar 1": "",
    }


def test_captions_lists_and_encodings_in_a_tar(tmp_path: Path) -> None:
    members = [
        ("0.jpg", encoded(picture(0))),
        ("0.txt", "é one\nÉ two\n".encode("cp1252")),
        ("1.jpg", encoded(picture(1))),
        ("1.json", json.dumps({"captions": ["a", "b"], "tags": ["x", "y"]}).encode("utf-16")),
        ("2.jpg", encoded(picture(2))),
        ("2.caption", "ü".encode("utf-8-sig")),
        ("3.jpg", encoded(picture(3))),
        ("3.caption.txt", b"three"),
        ("4.jpg", encoded(picture(4))),
        ("4.json", '{"caption": "\xe9"}'.encode("cp1252")),
        ("5.jpg", encoded(picture(5))),
        *((f"5.{name}.txt", name.encode()) for name in ("1", "0", "prompt")),
    ]
    note, *items = read(Tars(write_tar(tmp_path / "a.tar", members)))
    assert note == Note("a.tar 0", CP1252_NOTE)
    assert items.pop(4) == Note("a.tar 4", CP1252_NOTE)
    assert [item.captions for item in items] == [("é one", "É two"), ("a", "b"), (), (), (), ("0", "1", "prompt")]
    assert items[1].columns["tags"] == "x, y"
    assert [item.columns["caption"] for item in items[2:5]] == ["ü", "three", "é"]


def test_captions_behind_the_whole_name_of_a_picture(tmp_path: Path) -> None:
    members = [
        *(("0.jpg", encoded(picture(0))), ("0.jpg.txt", b"one")),
        *(("1.png", encoded(picture(1), "PNG")), ("1.png.json", b'{"caption": "two"}')),
        *(("2.jpg", encoded(picture(2))), ("2.cap", b"three")),
    ]
    assert list(captions_of(Tars(write_tar(tmp_path / "a.tar", members))).values()) == ["one", "two", "three"]


def test_tables_within_tars_and_beside_them_that_name_no_sample_are_counted(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("x/0.jpg", encoded(picture(0))), ("x/artists.csv", b"artist,born\nBo,1900\n")])
    write_files(tmp_path, {"stats.csv": "shard,samples\na,1\n", "odd.jsonl": "{"})
    source = Tars(tmp_path)
    left = [item for item in read(source) if isinstance(item, LeftOut)]
    assert [item.reason for item in left] == ["tables within a tar that name no picture in it"]
    assert source.left_out() == {NOT_READ: 2}


def test_splits_by_tar_by_folder_and_within_a_tar(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "validation", "test")):
        write_tar(tmp_path / f"{split}-000.tar", sample(number))
    source = Tars(tmp_path)
    assert [item.split for item in read(source)] == ["train", "val"]
    assert source.left_out() == {TEST_SPLIT: 1}
    members = [(f"{split}/op-art/{n}.jpg", encoded(picture(n))) for n, split in enumerate(("train", "test"))]
    kept, left = read(Tars(write_tar(tmp_path / "whole.tar", members)))
    assert (kept.columns["folder"], left) == ("op art", LeftOut("whole.tar test/op-art/1", TEST_SPLIT))


def test_tars_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "shards" / "b").mkdir(parents=True)
    write_tar(tmp_path / "shards" / "b" / "0.tar", sample(0))
    write_tar(tmp_path / "shards" / "a.tar", sample(1))
    (tmp_path / "preview.png").write_bytes(b"")
    source = Tars(tmp_path)
    assert [item.columns["title"] for item in read(source)] == ["T1", "T0"]
    assert source.left_out() == {"pictures beside the tars": 1}


def test_tars_are_known_again_by_names_sizes_and_times(tmp_path: Path) -> None:
    """A tar is padded to 10,240 bytes: its size alone tells little."""
    tar = write_tar(tmp_path / "mine" / "a.tar", [("0.txt", b"one")])
    told, before = Tars(tar).describe(), tar.stat()
    write_tar(tar, [("0.txt", b"two")])
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert tar.stat().st_size == before.st_size
    assert Tars(tar).describe() != told
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "mine").rename(tmp_path / "moved")
    assert Tars(tmp_path / "moved").describe() == told


def test_members_that_begin_with_a_dot_are_the_same_as_without(tmp_path: Path) -> None:
    source = Tars(write_tar(tmp_path / "a.tar", [("./a.jpg", encoded(picture(0))), ("a.txt", b"a cat")]))
    assert captions_of(source) == {"a.tar a": "a cat"}


def test_captions_in_a_folder_of_their_own(tmp_path: Path) -> None:
    members = [(f"./images/{n}.jpg", encoded(picture(n))) for n in range(3)]
    members += [("./captions/0.txt", b"a cat"), ("./captions/1.txt", b"a dog"), ("./captions/7.txt", b"nothing")]
    source = Tars(write_tar(tmp_path / "a.tar", members))
    assert captions_of(source) == {"a.tar images/0": "a cat", "a.tar images/1": "a dog", "a.tar images/2": ""}
    bad = [item for item in read(source) if isinstance(item, BadPicture)]
    assert bad == [BadPicture("a.tar captions/7", "no image among its members (txt)")]


def test_members_named_for_what_they_are(tmp_path: Path) -> None:
    members = [("d/1.image.jpg", encoded(picture(0))), ("d/1.caption.txt", b"a cat"), ("d/1.meta.json", b"{}")]
    assert captions_of(Tars(write_tar(tmp_path / "a.tar", members))) == {"a.tar d/1.image": "a cat"}
