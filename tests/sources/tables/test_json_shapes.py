"""`sources/tables/json_shapes.py`: JSON as it comes, and captions that lie deeper in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffusion_art.sources.detect import open_source
from tests.fakes_sources import captions_of, jpegs, write_files

PAIR = {"a.jpg": "a red house", "b.jpg": "a blue boat"}
ROWS = [{"file_name": name, "caption": text} for name, text in PAIR.items()]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".jsonlines"])
@pytest.mark.parametrize(
    "text",
    [
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        json.dumps(ROWS, indent=2).replace("}\n]", "},\n]"),
        "\ufeff" + "\r\n".join(map(json.dumps, ROWS)),
    ],
)
def test_several_objects_and_a_last_comma(tmp_path: Path, suffix: str, text: str) -> None:
    write_files(tmp_path, {**jpegs(*PAIR), f"m{suffix}": text})
    assert captions_of(open_source(tmp_path)) == PAIR


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"caption": {"short": "a house", "long": "a red house by the sea"}}, ("a house", "a red house by the sea")),
        ({"captions": {"blip": "a red house", "tagger": "house"}}, "a red house"),
        ({"texts": [["caption", "a red house"], ["alt", "the house"]]}, ("a red house", "the house")),
        ({"annotations": [{"caption": "a red house"}, {"caption": "the house"}]}, ("a red house", "the house")),
        ({"data": {"caption": "a red house", "score": 1}}, "a red house"),
        ({"tags": {"house": 0.9, "tree": 0.8}}, "house, tree"),
        ({"a": {"caption": "one"}, "b": {"caption": "two"}}, ""),  # which of them, nobody knows
        ({"title": "Lilies", "annotations": [{"caption": "a red house"}]}, "a red house"),
        ({"title": "Lilies", "license": {"text": "CC BY 4.0"}}, "Lilies"),
        ({"title": "Lilies", "artist": "Monet", "place": {"text": "Paris"}}, "Monet / Lilies"),
        ({"description": "a red house", "hashtags": [{"text": "art"}, {"text": "monet"}]}, "a red house"),
        ({"title": "Lilies", "objects": [{"caption": "a frog"}, {"caption": "a leaf"}]}, "Lilies"),
        ({"label": "sign", "ocr": [{"text": "STOP"}]}, "sign"),
        ({"id": 3, "copyright": {"text": "CC BY 4.0"}}, ""),
        (
            {"id": 3, "sourceResource": {"title": "T", "creator": "A", "date": [{"displayDate": "1870"}]}},
            "A / T / 1870",
        ),
        ({"id": 3, "place": {"title": "Paris"}}, ""),
        ({"alt_description": "a lake", "description": "my trip"}, "a lake"),
    ],
)
def test_captions_that_lie_deeper(tmp_path: Path, row: dict[str, Any], expected: Any) -> None:
    for number, (name, content) in enumerate({
        "m.jsonl": json.dumps({"image": "a.jpg", **row}),
        "m.json": json.dumps([{"image": "a.jpg", **row}]),
        "a.json": json.dumps(row),
    }.items()):  # fmt: skip
        write_files(tmp_path / str(number), {**jpegs("a.jpg"), name: content})
        assert captions_of(open_source(tmp_path / str(number))) == {"a.jpg": expected}, name


def test_the_picture_may_lie_deeper_too(tmp_path: Path) -> None:
    rows = [{"id": 1, "data": {"image": name, "caption": text}} for name, text in PAIR.items()]
    write_files(tmp_path, {**jpegs(*PAIR), "m.jsonl": "\n".join(map(json.dumps, rows))})
    assert captions_of(open_source(tmp_path)) == PAIR


@pytest.mark.parametrize("scores", [{"house": 0.9, "tree": 0.8}, [["house", 0.9], ["tree", 0.8]]])
def test_scores_of_taggers_are_tags_in_their_order(tmp_path: Path, scores: Any) -> None:
    write_files(tmp_path, {**jpegs("a.jpg"), "tags.json": json.dumps({"a.jpg": scores})})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "house, tree"}


def test_a_cover_among_records_is_not_the_picture_that_they_are_about(tmp_path: Path) -> None:
    write_files(tmp_path, {**jpegs(*PAIR), "m.json": json.dumps({"cover": "a.jpg", "images": ROWS})})
    assert captions_of(open_source(tmp_path)) == PAIR


@pytest.mark.parametrize(
    "content",
    [
        {"image": list(PAIR), "captions": list(PAIR.values())},
        {"columns": ["file", "caption"], "index": [0, 1], "data": [list(pair) for pair in PAIR.items()]},
        [list(pair) for pair in PAIR.items()],
        {"photos": {"page": 1, "photo": [{"url_l": name, "caption": text} for name, text in PAIR.items()]}},
        {"results": {"bindings": [{"image": {"value": n}, "caption": {"value": text}} for n, text in PAIR.items()]}},
        {"features": [{"name": "image"}], "rows": [{"row": {"image": n, "caption": text}} for n, text in PAIR.items()]},
        [{"caption": text, "image": f"{name} (https://dl.airtable.com/x)"} for name, text in PAIR.items()],
        {"response": {"items": [{"image": name, "caption": text} for name, text in PAIR.items()]}},
        [{"caption": text, "images": {"web": {"url": f"https://x/{name}?w=300"}}} for name, text in PAIR.items()],
        [{"caption": text, "o:media": [{"o:source": name}]} for name, text in PAIR.items()],
    ],
)
def test_rows_in_other_shapes(tmp_path: Path, content: Any) -> None:
    write_files(tmp_path, {**jpegs(*PAIR), "m.json": json.dumps(content)})
    assert captions_of(open_source(tmp_path)) == PAIR


def test_records_of_paintings_beside_other_lists(tmp_path: Path) -> None:
    """Europeana's answers hold facets too. A row whose records name two pictures is about both."""
    items = [{"title": ["T"], "dcCreator": ["A"], "edm": [{"by": "https://x/a.jpg"}, {"by": "https://x/b.jpg"}]}]
    answer = {"success": True, "items": items, "facets": [{"name": "TYPE", "fields": [{"label": "IMAGE"}]}]}
    write_files(tmp_path, {**jpegs(*PAIR), "m.json": json.dumps(answer)})
    assert captions_of(open_source(tmp_path)) == dict.fromkeys(PAIR, "A / T")


def test_words_in_a_list_are_tags(tmp_path: Path) -> None:
    """Codes of Iconclass too."""
    write_files(tmp_path, {**jpegs("a.jpg"), "data.json": '{"a.jpg": ["31A235", "31A24(+1)"]}'})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "31A235, 31A24(+1)"}


def test_pairs_beside_a_picture(tmp_path: Path) -> None:
    write_files(tmp_path, {**jpegs("a.jpg"), "a.json": '[["dog", "a black dog"], ["tree", "a green tree"]]'})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": ("a black dog", "a green tree")}


def test_what_is_said_of_a_list_of_pictures_is_said_of_none(tmp_path: Path) -> None:
    """COCO's images without annotations."""
    images = [{"file_name": name, "id": name} for name in PAIR]
    content = {"info": {"description": "COCO 2017"}, "images": images, "categories": [{"id": 1, "name": "person"}]}
    write_files(tmp_path, {**jpegs(*PAIR), "image_info.json": json.dumps(content)})
    assert captions_of(open_source(tmp_path)) == dict.fromkeys(PAIR, "")


@pytest.mark.parametrize("aside", ["exif", "album", "museum"])
def test_records_of_something_else_in_a_row(tmp_path: Path, aside: str) -> None:
    rows = [{"file": name, aside: {"title": "T", "artist": "A", "date": "2020"}} for name in PAIR]
    write_files(tmp_path, {**jpegs(*PAIR), "m.json": json.dumps(rows)})
    assert captions_of(open_source(tmp_path)) == dict.fromkeys(PAIR, "")


@pytest.mark.parametrize("captions", [("一艘红色的船", "大海"), ("เรือสีแดง", "ทะเล")])
def test_captions_in_scripts_without_spaces_are_no_tags(tmp_path: Path, captions: tuple[str, str]) -> None:
    write_files(tmp_path, {**jpegs(*PAIR), "c.json": json.dumps(dict.fromkeys(PAIR, captions))})
    assert captions_of(open_source(tmp_path)) == dict.fromkeys(PAIR, captions)
