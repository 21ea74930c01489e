"""`sources/folder.py`: the imagefolder conventions."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from diffusion_art.errors import UserError
from diffusion_art.sources.base import BadPicture, Picture, Source
from diffusion_art.sources.captions import Captioner
from diffusion_art.sources.folder import ImageFolder
from tests.fakes_sources import encoded, picture


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


def read(source: ImageFolder) -> list[Picture | BadPicture]:
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
    (folder / "deep" / "c.txt").write_bytes(b"caf\xe9")
    assert captions(ImageFolder(folder)) == {"a.jpg": "A quiet sea", "b.JPG": "", "deep/c.png": "caf\ufffd"}


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


def test_metadata_for_a_picture_that_is_not_there_counts_as_bad(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text('{"file_name": "gone.jpg"}')
    source = ImageFolder(folder)
    assert source.count == 4
    assert read(source)[3] == BadPicture("gone.jpg", "named in the metadata, not in the folder")


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
    with pytest.raises(UserError, match=message):
        ImageFolder(folder)


def test_metadata_must_be_utf8(folder: Path) -> None:
    (folder / "metadata.csv").write_bytes(b"file_name\na\xe9.jpg")
    with pytest.raises(UserError, match="is not UTF-8"):
        ImageFolder(folder)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no pictures"):
        ImageFolder(tmp_path)


def test_the_description_follows_the_content(folder: Path) -> None:
    before = ImageFolder(folder).describe()
    assert before == ImageFolder(folder.rename(folder.with_name("moved"))).describe()
    (folder.with_name("moved") / "a.txt").write_text("new")
    assert before != ImageFolder(folder.with_name("moved")).describe()
