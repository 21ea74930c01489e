"""`sources/folder/folder.py`: the imagefolder conventions."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from diffusion_art.captions.captioner import Captioner
from diffusion_art.errors import UserError
from diffusion_art.sources.base import BadPicture, Item, Note, Picture, Source
from diffusion_art.sources.folder.folder import ImageFolder
from diffusion_art.sources.tables.metadata import NO_PICTURE
from diffusion_art.sources.tables.texts import CP1252_NOTE
from tests.fakes_sources import captions_of, encoded, jpegs, notes_of, picture, pictures_of, write_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures at two depths, a hidden one, and a file that is none."""
    root = tmp_path / "My Paintings"
    (root / "deep").mkdir(parents=True)
    for number, name in enumerate(("b.JPG", "a.jpg", "deep/c.png")):
        kind = "PNG" if name.endswith("png") else "JPEG"
        (root / name).write_bytes(encoded(picture(number), kind))
    (root / "._a.jpg").write_bytes(b"what a Mac leaves behind")
    (root / "notes.md").write_text("no picture")
    return root


def read(source: ImageFolder) -> list[Item]:
    chunks = list(source.chunks())
    source = pickle.loads(pickle.dumps(source))
    return [item for chunk in chunks for item in source.pictures(chunk)]


def captions(source: ImageFolder) -> dict[str, str]:
    caption = Captioner(source.caption_template, source.columns)
    return {item.name: caption(item.columns) for item in read(source) if isinstance(item, Picture)}


def test_without_any_text_captions_are_empty(folder: Path) -> None:
    source = ImageFolder(folder)
    assert isinstance(source, Source)
    assert (source.name, source.count) == ("my-paintings", 3)
    assert captions(source) == {"a.jpg": "", "b.JPG": "", "deep/c.png": ""}


def test_txt_beside(folder: Path) -> None:
    (folder / "a.txt").write_text("A quiet  sea\n", "utf-8-sig")
    (folder / "b.txt").write_text("a castle, été", "utf-16")
    (folder / "deep" / "c.txt").write_bytes(b"caf\xe9")
    assert captions(ImageFolder(folder)) == {"a.jpg": "A quiet sea", "b.JPG": "a castle, été", "deep/c.png": "café"}
    assert [item for item in read(ImageFolder(folder)) if isinstance(item, Note)] == [Note("deep/c.png", CP1252_NOTE)]


def test_metadata_of_both_kinds(folder: Path) -> None:
    lines = [
        {"file_name": "a.jpg", "title": "A", "artist": "Ä", "tags": ["x", "y"], "objects": {"bbox": []}},
        {"file_name": "deep/c.png", "title": "overruled"},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    (folder / "deep" / "metadata.csv").write_text('file_name,title,artist\nc.png,"C, a picture",\n', "utf-8-sig")
    source = ImageFolder(folder)
    assert source.columns == ("file_name", "title", "artist", "tags")
    assert captions(source) == {"a.jpg": "Ä / A", "b.JPG": "", "deep/c.png": "C, a picture"}
    first = read(source)[0]
    assert isinstance(first, Picture)
    assert first.columns == {"file_name": "a.jpg", "title": "A", "artist": "Ä", "tags": "x, y"}


def test_a_ready_caption_wins_over_the_art_columns(folder: Path) -> None:
    lines = [{"file_name": "a.jpg", "title": "A", "artist": "Ä", "text": "all of a"}]
    (folder / "metadata.jsonl").write_text(json.dumps(lines[0]))
    assert captions(ImageFolder(folder))["a.jpg"] == "all of a"
    chosen = ImageFolder(folder, caption_template="{title} by {artist}")
    assert captions(chosen)["a.jpg"] == "A by Ä"


def test_metadata_for_a_picture_that_is_not_there_is_counted(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text('{"file_name": "gone.jpg"}')
    source = ImageFolder(folder)
    assert source.count == 3
    assert source.left_out() == {NO_PICTURE: 1}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("metadata.jsonl", '{"file_name": "../secret.jpg"}', "line 1 names the file.*outside the folder"),
        ("metadata.jsonl", '{"file_name": "/etc/passwd"}', "outside the folder"),
        ("metadata.jsonl", '{"file_name": "a.jpg"}\n{"title": "x"}', "line 2 has no `file_name`"),
        ("metadata.jsonl", "{broken", "line 1 is not JSON"),
        ("metadata.jsonl", "[1]", "line 1 is not an object"),
        ("metadata.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("metadata.csv", "title\nx", "line 2 has no `file_name`"),
        ("metadata.csv", 'file_name\n"' + "x" * 200_000, "is not CSV"),
    ],
)
def test_wrong_metadata_is_named_by_line(folder: Path, file: str, text: str, message: str) -> None:
    (folder / file).write_text(text)
    source = ImageFolder(folder)
    source.describe()
    with pytest.raises(UserError, match=message):
        source.chunks().__next__()


def test_a_name_may_begin_with_dots(tmp_path: Path) -> None:
    write_files(tmp_path, {"metadata.csv": "file_name,text\n...and then.jpg,a cat\nb.jpg,a dog\n"} | jpegs("b.jpg"))
    source = ImageFolder(tmp_path)
    assert captions(source) == {"b.jpg": "a dog"}  # a hidden picture does not belong to a collection
    assert source.left_out() == {NO_PICTURE: 1}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_metadata_is_read_in_any_encoding(folder: Path, encoding: str) -> None:
    (folder / "metadata.csv").write_bytes("file_name,text\na.jpg,Édouard’s café\n".encode(encoding))
    source = ImageFolder(folder)
    assert captions(source)["a.jpg"] == "Édouard’s café"
    assert notes_of(source) == ({CP1252_NOTE: 1} if encoding == "cp1252" else {})


def test_a_json_beside_a_picture_that_is_read_as_windows_1252_is_counted(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("a.jpg") | {"a.json": '{"caption": "é"}'.encode("cp1252")})
    source = ImageFolder(tmp_path)
    assert (captions(source), notes_of(source)) == ({"a.jpg": "é"}, {CP1252_NOTE: 1})


@pytest.mark.parametrize("name", ["a.text", "a.CAP", "a.caption", "a.jpg.txt"])
def test_texts_by_other_suffixes(tmp_path: Path, name: str) -> None:
    assert captions(ImageFolder(write_files(tmp_path, jpegs("a.jpg") | {name: "a cat"}))) == {"a.jpg": "a cat"}


def test_texts_beside_are_found_in_any_case(tmp_path: Path) -> None:
    texts = {"img_1.txt": "one", "IMG_2.TXT": "two", "c.txt": "small", "C.json": '{"caption": "large"}'}
    source = ImageFolder(write_files(tmp_path, jpegs("IMG_1.JPG", "img_2.jpg", "c.jpg", "C.jpg") | texts))
    assert captions(source) == {"IMG_1.JPG": "one", "img_2.jpg": "two", "c.jpg": "small", "C.jpg": "large"}
    assert source.left_out() == {}


def test_the_name_of_the_picture_is_no_title(tmp_path: Path) -> None:
    takeout = '{"title": "a.jpg", "description": "My cat", "imageViews": "3"}'
    assert captions(ImageFolder(write_files(tmp_path, jpegs("x/a.jpg") | {"x/a.jpg.json": takeout}))) == {
        "x/a.jpg": "My cat"
    }


def test_a_json_beside_a_picture_may_be_a_list_of_captions(tmp_path: Path) -> None:
    jsons = {"a.json": '["red", "blue"]', "b.json": '"green"', "c.json": "[[1, 2]]"}
    write_files(tmp_path, jpegs("a.jpg", "b.jpg", "c.jpg") | jsons)
    assert captions_of(ImageFolder(tmp_path)) == {"a.jpg": ("red", "blue"), "b.jpg": "green", "c.jpg": ""}


def test_lines_of_a_text_are_captions_to_choose_from(folder: Path) -> None:
    (folder / "a.txt").write_text("a sea\n\n  a quiet sea \r\na sea\n")
    (folder / "a.caption").write_text("waves")
    (folder / "b.caption").write_text("a hill")
    (folder / "deep" / "c.png.txt").write_text("one only")
    assert captions_of(ImageFolder(folder)) == {
        "a.jpg": ("a sea", "a quiet sea", "waves"),
        "b.JPG": "a hill",
        "deep/c.png": "one only",
    }


def test_a_text_goes_before_metadata_and_metadata_before_a_json_of_its_own(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "a.jpg", "caption": "m"}\n{"file_name": "b.JPG", "caption": "m"}'
    )
    for name in ("a", "b", "deep/c"):
        (folder / f"{name}.json").write_text(json.dumps({"caption": "j", "score": 0.5, "boxes": [[1, 2]], "no": None}))
    (folder / "a.txt").write_text("t")
    source = ImageFolder(folder)
    assert source.columns is None  # each picture has a file of columns
    assert captions_of(source) == {"a.jpg": "t", "b.JPG": "m", "deep/c.png": "j"}
    assert pictures_of(source)["deep/c.png"].columns == {"file_name": "deep/c.png", "caption": "j", "score": "0.5"}


def test_a_broken_json_beside_a_picture_makes_it_a_bad_one(folder: Path) -> None:
    (folder / "a.json").write_text("{broken")
    assert [type(item) for item in read(ImageFolder(folder))] == [BadPicture, Picture, Picture]


@pytest.mark.parametrize("suffix", [".txt", ".caption", ".json"])
def test_a_text_too_long_for_one_picture_makes_it_a_bad_one(folder: Path, suffix: str) -> None:
    (folder / f"a{suffix}").write_bytes(b" " * (2**20 + 1))
    assert read(ImageFolder(folder))[0] == BadPicture(
        "a.jpg", f"its {suffix} has 1048577 bytes, at most 1048576 are read"
    )


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no pictures"):
        ImageFolder(tmp_path)


def test_the_description_follows_the_content(folder: Path) -> None:
    before = ImageFolder(folder).describe()
    assert before == ImageFolder(folder.rename(folder.with_name("moved"))).describe()
    text = folder.with_name("moved") / "a.txt"
    text.write_text("new")
    after = ImageFolder(text.parent).describe()
    assert before != after
    text.write_text("old")  # of the same length, at another time
    os.utime(text, ns=(0, 0))
    assert ImageFolder(text.parent).describe() not in (before, after)
