"""`sources/programs/annotators.py`: what annotation tools export, as their users reported it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion_art.sources.detect import open_source
from tests.fakes_sources import captions_of, jpegs, write_files

PAIR = {"a.jpg": "a red house", "b.jpg": "a blue boat"}
UPLOADED = {"/data/upload/3/1e5cfd21-a.jpg": "a red house", "/data/upload/3/9f0011aa-b.jpg": "a blue boat"}


def typed(text: str) -> list[dict]:
    return [{"result": [{"type": "textarea", "value": {"text": [text]}}]}]


@pytest.mark.parametrize(
    "table",
    [
        ("p.json", json.dumps([{"data": {"image": name}, "annotations": typed(t)} for name, t in UPLOADED.items()])),
        ("p.json", json.dumps([{"image": file, "caption": text} for file, text in UPLOADED.items()])),
        ("p.csv", "id,caption,image\n" + "".join(f"1,{text},{file}\n" for file, text in UPLOADED.items())),
    ],
)  # fmt: skip
def test_label_studio_puts_a_hash_before_the_names_of_uploads(tmp_path: Path, table: tuple[str, str]) -> None:
    write_files(tmp_path, {**jpegs(*PAIR), table[0]: table[1]})
    assert captions_of(open_source(tmp_path)) == PAIR


def test_a_picture_that_has_the_whole_name_goes_before_one_without_the_hash(tmp_path: Path) -> None:
    names = ("a.jpg", "1e5cfd21-a.jpg")
    write_files(tmp_path, {**jpegs(*names), "p.csv": "image,caption\n1e5cfd21-a.jpg,uploaded\na.jpg,own\n"})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "own", "1e5cfd21-a.jpg": "uploaded"}


def test_via_by_csv(tmp_path: Path) -> None:
    """A row a region, the attributes as JSON."""
    rows = (
        'filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n'
        'a.jpg,500,"{""caption"":""a red house""}",0,0,"{}","{}"\n'
        'b.jpg,500,"{""caption"":""a blue boat""}",2,0,"{""name"":""rect""}","{""name"":""sail""}"\n'
        'b.jpg,500,"{""caption"":""a blue boat""}",2,1,"{""name"":""rect""}","{""name"":""hull""}"\n'
    )  # fmt: skip
    write_files(tmp_path, {**jpegs(*PAIR), "via_export_csv.csv": rows})
    assert captions_of(open_source(tmp_path)) == PAIR


def test_fiftyone(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("data/a.jpg", "data/b.jpg"))
    samples = [
        {"filepath": "data/a.jpg", "tags": [], "ground_truth": {"_cls": "Classification", "label": "house"}},
        {"filepath": "data/b.jpg", "tags": [], "found": {"_cls": "Detections", "detections": [{"label": "boat"}]}},
    ]
    write_files(tmp_path, {"samples.json": json.dumps({"samples": samples})})
    assert captions_of(open_source(tmp_path)) == {"data/a.jpg": "house", "data/b.jpg": "boat"}


def test_fiftyone_with_a_file_a_sample(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("data/a.jpg", "data/b.jpg"))
    for number, (name, text) in enumerate(PAIR.items()):
        row = {"_id": {"$oid": f"63{number}"}, "filepath": f"data/{name}", "caption": text}
        write_files(tmp_path, {f"samples/63{number}.json": json.dumps(row)})
    assert captions_of(open_source(tmp_path)) == {"data/a.jpg": "a red house", "data/b.jpg": "a blue boat"}


def test_classes_by_number(tmp_path: Path) -> None:
    content = {"classes": ["house", "boat"], "labels": {"a": 0, "b": 1, "c": 7}}
    write_files(tmp_path, {**jpegs("data/a.jpg", "data/b.jpg"), "labels.json": json.dumps(content)})
    assert captions_of(open_source(tmp_path)) == {"data/a.jpg": "house", "data/b.jpg": "boat"}


def test_roboflow(tmp_path: Path) -> None:
    one_hot = "filename, boat, house\na.jpg, 0, 1\nb.jpg, 1, 1\n"
    write_files(tmp_path, {**jpegs("train/a.jpg", "train/b.jpg"), "train/_classes.csv": one_hot})
    assert captions_of(open_source(tmp_path)) == {"train/a.jpg": "house", "train/b.jpg": "boat, house"}


def test_questions_of_vision_language_models(tmp_path: Path) -> None:
    rows = [
        {"image": "a.jpg", "prefix": "caption", "suffix": "a red house"},
        {"image": "b.jpg", "prefix": "detect boat", "suffix": "<loc0123><loc0456> boat"},
    ]
    write_files(tmp_path, {**jpegs(*PAIR), "annotations.jsonl": "\n".join(map(json.dumps, rows))})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "a red house", "b.jpg": ""}


def test_a_column_a_class(tmp_path: Path) -> None:
    """ArtDL. Where rows tell anything else, ones and zeros are no labels."""
    table = "item,set,11F(MARY),11H(FRANCIS),is_public_domain\na,train,1,0,1\nb,train,0,1,1\nc,test,1,0,1\n"
    write_files(tmp_path, {**jpegs("a.jpg", "b.jpg", "c.jpg"), "ArtDL.csv": table})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "11F(MARY)", "b.jpg": "11H(FRANCIS)"}
    write_files(tmp_path, {"ArtDL.csv": "item,title,oil,framed\na,Lilies,1,0\nb,Boats,0,1\nc,Dogs,1,1\n"})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "Lilies", "b.jpg": "Boats", "c.jpg": "Dogs"}


@pytest.mark.parametrize("flags", ["blurry,cropped\na.jpg,0,0\nb.jpg,0,1", "reviewed,approved\na.jpg,1,1\nb.jpg,1,1"])
def test_flags_are_no_classes(tmp_path: Path, flags: str) -> None:
    write_files(tmp_path, {**jpegs("Cubism/a.jpg", "Cubism/b.jpg"), "Cubism/checked.csv": f"file,{flags}\n"})
    assert set(captions_of(open_source(tmp_path)).values()) == {"Cubism"}
