"""`sources/programs/exports.py`: what Instagram, Facebook and exiftool write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion_art.sources.detect import open_source
from tests.fakes_sources import captions_of, jpegs, write_files


def test_posts_of_instagram(tmp_path: Path) -> None:
    """Its text is UTF-8 whose bytes were written as letters."""
    posts = [
        {"media": [{"uri": "media/posts/a.jpg", "creation_timestamp": 1, "title": "a red house"}]},
        {"title": "two \u00c3\u00a9tudes", "media": [
            {"uri": "media/posts/b.jpg", "creation_timestamp": 2, "title": ""},
            {"uri": "media/posts/c.jpg", "creation_timestamp": 2, "title": ""}]},
    ]  # fmt: skip
    write_files(tmp_path, jpegs("media/posts/a.jpg", "media/posts/b.jpg", "media/posts/c.jpg"))
    write_files(tmp_path, {"content/posts_1.json": json.dumps(posts)})
    assert captions_of(open_source(tmp_path)) == {
        "media/posts/a.jpg": "a red house",
        "media/posts/b.jpg": "two études",
        "media/posts/c.jpg": "two études",
    }


def test_albums_of_facebook(tmp_path: Path) -> None:
    photos = [{"uri": "photos/a.jpg", "creation_timestamp": 1, "description": "caf\u00c3\u00a9"}]
    album = {"name": "Paris", "photos": photos, "cover_photo": {"uri": "photos/a.jpg", "creation_timestamp": 1}}
    write_files(tmp_path, {**jpegs("photos/a.jpg"), "album/0.json": json.dumps(album)})
    assert captions_of(open_source(tmp_path)) == {"photos/a.jpg": "café"}


def test_exiftool_by_csv_and_json(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("a/1.jpg", "b/2.jpg", "b/3.jpg"))
    write_files(tmp_path, {"a/out.csv": "SourceFile,XMP:Title,XMP:Description\n./1.jpg,House,a red house\n"})
    sidecar = [{"SourceFile": "2.jpg", "EXIF:ImageDescription": "a blue boat", "XMP:Title": "Boat"}]  # osxphotos
    write_files(
        tmp_path,
        {"b/2.jpg.json": json.dumps(sidecar), "b/3.jpg.json": '[{"SourceFile": "3.jpg", "IPTC:Keywords": "x"}]'},
    )
    captions = captions_of(open_source(tmp_path))
    assert captions == {"a/1.jpg": "a red house", "b/2.jpg": "a blue boat", "b/3.jpg": "x"}


def test_what_cameras_write_is_no_description_of_exiftool(tmp_path: Path) -> None:
    table = "SourceFile,ImageDescription,Artist\n./a.jpg,a red house,Ann\n./b.jpg,OLYMPUS DIGITAL CAMERA,Bob\n"
    write_files(tmp_path, {**jpegs("a.jpg", "b.jpg"), "m.csv": table})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "a red house", "b.jpg": "Bob"}


def test_photos_of_flickr(tmp_path: Path) -> None:
    """A JSON file a photo, in another folder and by another name."""
    rows = [("7085146945", "Sunset", "A red sunset"), ("7085146946", "Beach", " ")]
    write_files(tmp_path, jpegs("data/sunset_7085146945_o.jpg", "data/beach_7085146946_o.jpg"))
    for number, name, said in rows:
        row = {"id": number, "name": name, "description": said, "photopage": "https://www.flickr.com/x", "tags": []}
        write_files(tmp_path, {f"meta/photo_{number}.json": json.dumps(row)})
    assert captions_of(open_source(tmp_path)) == {
        "data/sunset_7085146945_o.jpg": "A red sunset",
        "data/beach_7085146946_o.jpg": "Beach",
    }


def test_what_wikimedia_says_of_its_files(tmp_path: Path) -> None:
    known = {"ObjectName": "Sunrise", "Artist": '<a href="//x">Claude Monet</a>', "DateTimeOriginal": "1872"}
    told = {name: {"value": value, "source": "x"} for name, value in known.items()}
    page = {"title": "File:Monet - Sunrise.jpg", "imageinfo": [{"url": "https://x/1.jpg", "extmetadata": told}]}
    for number, (name, content) in enumerate({
        "Monet_-_Sunrise.json": page,
        "info.json": {"query": {"pages": {"1": page}}},
    }.items()):  # fmt: skip
        write_files(tmp_path / str(number), {**jpegs("Monet_-_Sunrise.jpg"), name: json.dumps(content)})
        assert captions_of(open_source(tmp_path / str(number))) == {
            "Monet_-_Sunrise.jpg": "Claude Monet / Sunrise / 1872"
        }


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("{{Artwork\n |artist = {{Creator:Monet}}\n |title = {{en|1=Sunrise}}\n |date=1872\n}}",
         "Monet / Sunrise / 1872"),
        ("{{Information\n|description={{en|1=A [[harbour|port]] at dawn}}\n|author=Bo\n}}", "A port at dawn"),
        ("a house in {{braces}}", "a house in {{braces}}"),
    ],
)  # fmt: skip
def test_pages_of_wikimedia_beside_pictures(tmp_path: Path, text: str, caption: str) -> None:
    write_files(tmp_path, {**jpegs("a.jpg"), "a.txt": text})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": caption}


def test_prompts_of_diffusiondb(tmp_path: Path) -> None:
    told = {"a.png": {"p": "a castle", "se": 38, "c": 7.0, "st": 50, "sa": "k_lms"}}
    write_files(tmp_path, {**jpegs("a.png"), "part-000001.json": json.dumps(told)})
    assert captions_of(open_source(tmp_path)) == {"a.png": "a castle"}
