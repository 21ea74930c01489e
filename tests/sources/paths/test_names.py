"""`sources/paths/names.py`: which picture a table means."""

from __future__ import annotations

import unicodedata

import pytest

from diffusion_art.sources.paths.names import PictureNames, is_layout, painting, paintings, words

FILES = (
    "a.jpg",
    "img/b.JPG",
    "img/c.png",
    "old/c.png",
    "new/d.tar.png",
    "e/f.jpg",
    "g h.jpg",
    "n/000012.jpg",
    "n/000007.jpg",
    "o/07.jpg",
    unicodedata.normalize("NFD", "é.jpg"),
)


@pytest.mark.parametrize(
    ("name", "folder", "file"),
    [
        ("a.jpg", "", "a.jpg"),
        ("./x/../a.jpg ", "", "a.jpg"),
        ("../a.jpg", "img", "a.jpg"),
        ("b.jpg", "", "img/b.JPG"),
        ("img\\b.jpg", "", "img/b.JPG"),
        ("C:\\scans\\old\\c.png", "", "old/c.png"),
        ("/home/me/img/c.png", "tables", "img/c.png"),
        ("c.png", "old", "old/c.png"),
        ("a.jpg", "img", None),  # img has pictures of its own
        ("./f.jpg", "img", None),
        ("f.jpg", "tables", "e/f.jpg"),
        ("e/f.jpg", "img", "e/f.jpg"),
        ("c.png", "", None),  # two would do
        ("d.tar", "", "new/d.tar.png"),
        ("f", "", "e/f.jpg"),
        ("f.png", "", None),
        ("f.jpg#3", "", "e/f.jpg"),
        ("https://x.example/full/f.jpg?w=1", "", "e/f.jpg"),
        ("g%20h.jpg", "", "g h.jpg"),
        ("12", "", "n/000012.jpg"),
        ("12.0", "", "n/000012.jpg"),
        ("7", "", None),  # two would do
        ("7", "o", "o/07.jpg"),  # the table lies there
        ("7", "tables", None),
        ("é.jpg", "", FILES[-1]),
        ("/etc/passwd", "", None),
        ("", "", None),
    ],
)
def test_find(name: str, folder: str, file: str | None) -> None:
    assert PictureNames(FILES).find(name, folder) == file


def test_a_float_is_no_name_with_a_suffix() -> None:
    names = PictureNames(FILES)
    assert not names.named_exactly("12.0")
    assert names.named_exactly("f.jpg#3")


def test_names_of_paintings() -> None:
    monet = "x/claude-monet_water-lilies-1919.jpg"
    assert paintings([monet])
    assert painting(monet) == {"artist": "Claude Monet", "title": "Water Lilies", "date": "1919"}
    for names in (["img_001.jpg"], ["cat_dog.jpg"], [monet, "IMG-001.jpg"], ["a-b_c_d.jpg"]):
        assert not paintings(names)


def test_words() -> None:
    assert words("Abstract_Expressionism") == "Abstract Expressionism"


def test_folders_of_resized_pictures_tell_nothing() -> None:
    assert all(map(is_layout, ("resized", "images_resized", "thumbnails", "images")))
    assert not is_layout("resized monets")
