"""`sources/folder/beside.py`: texts about one picture. The layouts stand in test_collections.py."""

from __future__ import annotations

import json
from pathlib import Path

from diffusion_art.sources.detect import open_source
from diffusion_art.sources.folder.collection import ORPHAN_TEXTS
from tests.fakes_sources import captions_of, jpegs, pictures_of, write_files


def test_a_text_that_is_json_is_no_list_of_its_lines(tmp_path: Path) -> None:
    scene = json.dumps({"scene": "a street", "subjects": [{"kind": "a dog"}]}, indent=2)
    texts = {
        "a.txt": scene,
        "b.txt": json.dumps({"caption": "a red\nhouse"}, indent=2),
        "c.txt": '["a dog", "a black dog"]',
        "d.txt": "{a|b} house\n[the house]",  # of a program that makes prompts, and no JSON
    }
    write_files(tmp_path, {**jpegs("a.jpg", "b.jpg", "c.jpg", "d.jpg"), **texts})
    source = open_source(tmp_path)
    assert captions_of(source) == {
        "a.jpg": " ".join(scene.split()),
        "b.jpg": "a red house",
        "c.jpg": ("a dog", "a black dog"),
        "d.jpg": ("{a|b} house", "[the house]"),
    }
    assert pictures_of(source)["b.jpg"].columns["caption"] == "a red house"


def test_the_sentences_of_flickr30k_entities(tmp_path: Path) -> None:
    text = "[/EN#1/people Two young guys] with [/EN#2/bodyparts hair] .\n[/EN#3/people A man] [not] here .\n"
    write_files(tmp_path, {**jpegs("flickr30k-images/1.jpg"), "Sentences/1.txt": text})
    assert captions_of(open_source(tmp_path)) == {
        "flickr30k-images/1.jpg": ("Two young guys with hair .", "A man [not] here .")
    }


def test_texts_apart_in_other_folders_belong_to_the_one_picture_of_their_name(tmp_path: Path) -> None:
    """CUB's `text/` beside `CUB_200_2011/images/`, and the flowers' `text_c10/class_00001/` beside `jpg/`."""
    write_files(tmp_path, jpegs("CUB/images/001.Albatross/a.jpg", "jpg/image_1.jpg", "x/1.jpg", "y/1.jpg"))
    texts = ("text/001.Albatross/a.txt", "text_c10/class_00001/image_1.txt", "text_c10/class_00001/1.txt")
    write_files(tmp_path, dict(zip(texts, ("a bird", "a flower", "whose?"))))
    source = open_source(tmp_path)
    captions = captions_of(source)
    assert captions["CUB/images/001.Albatross/a.jpg"] == "a bird"
    assert captions["jpg/image_1.jpg"] == "a flower"
    assert "whose?" not in captions.values()
    assert source.left_out() == {ORPHAN_TEXTS: 1}


def test_tags_of_hydrus_are_one_caption(tmp_path: Path) -> None:
    """A tag a line, some with what kind they are."""
    write_files(tmp_path, {**jpegs("aa.jpg"), "aa.jpg.txt": "creator:monet\nwater lilies\npond\n"})
    write_files(tmp_path, {**jpegs("bb.jpg"), "bb.jpg.txt": "title: a house\na red house\n"})
    assert captions_of(open_source(tmp_path)) == {
        "aa.jpg": "creator:monet, water lilies, pond",
        "bb.jpg": ("title: a house", "a red house"),
    }
