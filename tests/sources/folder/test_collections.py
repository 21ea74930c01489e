"""The layouts that collections come in, each made small: what `open_source` makes of them (docs/collections.md)."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from diffusion_art.sources.base import LeftOut
from diffusion_art.sources.detect import open_source
from diffusion_art.sources.folder.beside import BOXES_NOTE
from diffusion_art.sources.folder.collection import (
    COMPANIONS,
    DAMAGED_TABLE,
    NO_SUFFIX,
    ORPHAN_TEXTS,
    PASSED_BY,
    REPEATS,
)
from diffusion_art.sources.folder.folder import ImageFolder
from diffusion_art.sources.parquet.parquet import Parquet
from diffusion_art.sources.paths.names import REGULARISATION
from diffusion_art.sources.paths.splits import TEST_SPLIT
from diffusion_art.sources.tables.delimited import SHORT_ROWS
from diffusion_art.sources.tables.json_shapes import REJECTED
from diffusion_art.sources.tables.metadata import NO_PICTURE, NO_TABLE, OTHER_SUFFIX, SEVERAL
from diffusion_art.sources.tables.texts import CP1252_NOTE
from diffusion_art.sources.tars.tars import Tars
from tests.fakes_sources import (
    captions_of,
    encoded,
    jpegs,
    notes_of,
    picture,
    pictures_of,
    read_all,
    write_files,
    write_parquet,
)
from tests.sources.tars.test_tars import write_tar


def splits_of(source: Any) -> dict[str, str | None]:
    return {name: item.split for name, item in pictures_of(source).items()}


# ------------------------------------------------------------------ img2dataset


def link_rows() -> list[dict[str, Any]]:
    """What img2dataset keeps of three links, of which the second is dead."""
    states = ("success", "failed_to_download", "success")
    return [{"key": f"{n:09d}", "url": "http://x", "caption": f"cap {n}", "status": s} for n, s in enumerate(states)]


def test_img2dataset_webdataset(tmp_path: Path) -> None:
    rows = [row for row in link_rows() if row["status"] == "success"]
    members = [
        (f"{row['key']}.{suffix}", content)
        for number, row in enumerate(rows)
        for suffix, content in (
            ("jpg", encoded(picture(number))),
            ("txt", row["caption"].encode()),
            ("json", json.dumps(row).encode()),
        )
    ]
    write_tar(tmp_path / "00000.tar", members)
    write_parquet(tmp_path / "00000.parquet", link_rows(), schema=None)
    write_files(tmp_path, {"00000_stats.json": '{"successes": 2}'})
    source = open_source(tmp_path)
    assert isinstance(source, Tars)
    assert captions_of(source) == {"00000.tar 000000000": "cap 0", "00000.tar 000000002": "cap 2"}


def test_img2dataset_files(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("00000/000000000.jpg", "00000/000000002.jpg"))
    for row in (link_rows()[0], link_rows()[2] | {"caption": "a caption\nof two lines"}):
        stem = f"00000/{row['key']}"
        write_files(tmp_path, {f"{stem}.txt": row["caption"], f"{stem}.json": json.dumps(row)})
    write_parquet(tmp_path / "00000.parquet", link_rows(), schema=None)
    write_files(tmp_path, {"00000_stats.json": '{"successes": 2}'})
    source = open_source(tmp_path)
    assert isinstance(source, ImageFolder)
    assert captions_of(source) == {
        "00000/000000000.jpg": "cap 0",
        "00000/000000002.jpg": "a caption of two lines",  # as its json has it: one text, no alternatives
    }
    assert source.left_out() == {}


def test_img2dataset_parquet_leaves_out_dead_links(tmp_path: Path) -> None:
    rows = [row | {"jpg": encoded(picture(n)) if n != 1 else None} for n, row in enumerate(link_rows())]
    write_parquet(tmp_path / "00000.parquet", rows, schema=None)
    source = open_source(tmp_path)
    assert isinstance(source, Parquet)
    assert read_all(source)[1] == LeftOut("00000.parquet row 1", "rows without a picture (failed_to_download)")
    assert list(captions_of(source).values()) == ["cap 0", "cap 2"]


# ------------------------------------------------------------------ Hugging Face

ROWS = [{"file_name": "a.jpg", "text": "a cat"}, {"file_name": "deep/b.jpg", "text": "a dog"}]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "json", "parquet"])
def test_imagefolder_metadata_of_every_kind(tmp_path: Path, kind: str) -> None:
    write_files(tmp_path, jpegs("a.jpg", "deep/b.jpg"))
    texts = {
        "jsonl": "\n".join(map(json.dumps, ROWS)),
        "json": json.dumps(ROWS),
        "csv": "file_name,text\n" + "".join(f"{row['file_name']},{row['text']}\n" for row in ROWS),
        "tsv": "file_name\ttext\n" + "".join(f"{row['file_name']}\t{row['text']}\n" for row in ROWS),
    }
    if kind == "parquet":
        write_parquet(tmp_path / "metadata.parquet", ROWS, schema=None)
    else:
        write_files(tmp_path, {f"metadata.{kind}": texts[kind]})
    source = open_source(tmp_path)
    assert isinstance(source, ImageFolder)
    assert captions_of(source) == {"a.jpg": "a cat", "deep/b.jpg": "a dog"}


@pytest.mark.parametrize("val", ["validation", "val2017", "valid", "dev"])
def test_named_splits_of_a_folder(tmp_path: Path, val: str) -> None:
    write_files(tmp_path, jpegs("train/cubism/a.jpg", f"{val}/cubism/b.jpg", "test/op-art/c.jpg"))
    source = open_source(tmp_path)
    assert splits_of(source) == {"train/cubism/a.jpg": "train", f"{val}/cubism/b.jpg": "val"}
    assert set(captions_of(source).values()) == {"cubism"}
    assert (source.count, source.left_out()) == (2, {TEST_SPLIT: 1})


def test_without_a_validation_split_the_hash_decides_as_before(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("train/a.jpg", "test/b.jpg"))
    assert splits_of(open_source(tmp_path)) == {"train/a.jpg": None}
    assert splits_of(open_source(tmp_path / "test")) == {"b.jpg": None}  # asked for by name


@pytest.mark.parametrize(
    "files",
    [
        {"train.txt": "img/0.jpg 3\nimg/1.jpg 4\n", "test.txt": "img/2.jpg 5\n"},
        {"splits/trainval.txt": "0\n1\n", "splits/test.txt": "2\n"},
        {"split.json": '{"train": ["0.jpg", "1.jpg"], "test": ["2.jpg"]}'},
        {"captions.json": '{"train": {"0.jpg": "a", "1.jpg": "b"}, "test": {"2.jpg": "c"}}'},
        {"all.csv": "image,caption,Subset\n0.jpg,a,Train\n1.jpg,b,train\n2.jpg,c,TEST\n"},
        {"all.csv": "image,caption,phase\n0.jpg,a,training\n1.jpg,b,train\n2.jpg,c,testing\n"},
    ],
)
def test_lists_and_columns_name_test_pictures(tmp_path: Path, files: dict[str, str]) -> None:
    write_files(tmp_path, jpegs("img/0.jpg", "img/1.jpg", "img/2.jpg") | files)
    source = open_source(tmp_path)
    assert list(pictures_of(source)) == ["img/0.jpg", "img/1.jpg"]
    assert source.left_out() == {TEST_SPLIT: 1}


@pytest.mark.parametrize(
    "column", ["TEXT", "txt", "Caption", "prompt", "edited_prompt", "image_caption", "captions", "caption_str"]
)
def test_columns_that_hold_captions(tmp_path: Path, column: str) -> None:
    write_files(tmp_path, jpegs("a.jpg") | {"metadata.jsonl": json.dumps({"file_name": "a.jpg", column: "a cat"})})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "a cat"}


def test_another_column_is_there_for_a_template(tmp_path: Path) -> None:
    row = {"file_name": "a.jpg", "additional_feature": "a cat", "tags": ["x", "y"]}
    write_files(tmp_path, jpegs("a.jpg") | {"metadata.jsonl": json.dumps(row)})
    plain = open_source(tmp_path)
    assert plain.columns == ("file_name", "additional_feature", "tags")
    assert captions_of(open_source(tmp_path, caption_template="{additional_feature}")) == {"a.jpg": "a cat"}
    assert captions_of(plain) == {"a.jpg": "x, y"}  # tags are joined, and better than nothing


def test_ids_with_and_without_zeros_name_pictures_and_numbers_of_classes_do_not(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs(*(f"{n:06d}.jpg" for n in range(30))))
    rows = [f"{n % 2},{n}.0,picture {n}\n" for n in range(30)]
    table = write_files(tmp_path, {"a.csv": "label,image_id,caption\n" + "".join(rows)}) / "a.csv"
    assert captions_of(open_source(tmp_path)) == {f"{n:06d}.jpg": f"picture {n}" for n in range(30)}
    table.write_text(table.read_text().replace(".0,", "x,"))
    assert set(captions_of(open_source(tmp_path)).values()) == {""}


def test_a_list_of_captions_gives_alternatives(tmp_path: Path) -> None:
    row = {"file_name": "a.jpg", "captions": ["a cat", "a black cat"]}
    numbered = {"file_name": "b.jpg", "caption_1": "a dog", "caption_2": "a sad dog"}
    write_files(tmp_path, jpegs("a.jpg", "b.jpg") | {"metadata.json": json.dumps([row, numbered])})
    assert captions_of(open_source(tmp_path)) == {
        "a.jpg": ("a cat", "a black cat"),
        "b.jpg": ("a dog", "a sad dog"),
    }


# ------------------------------------------------------------------ trainers


def test_kohyas_folders(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("10_sks dog/a.jpg", "10_sks dog/b.jpg", "1_dog/c.jpg"))
    write_files(tmp_path, {"10_sks dog/a.caption": "a dog on a chair", "10_sks dog/a-masklabel.png": b"\x89PNG"})
    source = open_source(tmp_path)
    assert captions_of(source) == {
        "10_sks dog/a.jpg": "a dog on a chair",
        "10_sks dog/b.jpg": "sks dog",  # as sd-scripts has it
        "1_dog/c.jpg": "dog",
    }
    assert pictures_of(source)["10_sks dog/b.jpg"].columns["repeats"] == "10"
    assert source.left_out() == {"masks of OneTrainer": 1}
    assert notes_of(source) == {REPEATS: 2}


def test_kohyas_metadata_by_file_name(tmp_path: Path) -> None:
    content = {"/home/me/train/a.jpg": {"caption": "a cat", "tags": "cat"}, "b": {"tags": "dog, sky"}}
    write_files(tmp_path, jpegs("a.jpg", "b.jpg") | {"meta_lat.json": json.dumps(content)})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "a cat", "b.jpg": "dog, sky"}


@pytest.mark.parametrize(
    "content",
    [
        {"file": {"0": "a.jpg", "1": "b.jpg"}, "text": {"0": "a cat", "1": "a dog"}},
        {"annotations": [{"image": "a.jpg", "caption": "a cat"}], "more": [{"image": "b.jpg", "caption": "a dog"}]},
        {
            "images": [{"id": 1, "file_name": "a.jpg"}, {"id": "2", "file_name": "b.jpg"}],
            "annotations": [{"image_id": "1", "caption": "a cat"}, {"image_id": 2, "caption": "a dog"}],
        },
        {"licenses": [{"id": 1}], "data": [{"f": "a.jpg", "text": "a cat"}, {"f": "b.jpg", "text": "a dog"}]},
    ],
)
def test_further_shapes_of_json(tmp_path: Path, content: Any) -> None:
    write_files(tmp_path, jpegs("a.jpg", "b.jpg") | {"data.json": json.dumps(content)})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "a cat", "b.jpg": "a dog"}


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("images/cats/a.jpg", "captions/cats/a.txt"),
        ("train/images/a.jpg", "train/text/a.txt"),
        ("train/a.jpg", "train/captions_en/a.txt"),
        ("jpg/a.jpg", "txt/a.caption"),
    ],
)
def test_texts_in_a_folder_of_their_own(tmp_path: Path, image: str, text: str) -> None:
    write_files(tmp_path, jpegs(image, "x/b.jpg", "y/b.jpg") | {text: "a cat", "captions/b.txt": "x or y?"})
    source = open_source(tmp_path)
    assert captions_of(source)[image] == "a cat"
    assert "x or y?" not in captions_of(source).values()
    assert source.left_out() == {ORPHAN_TEXTS: 1}


# ------------------------------------------------------------------ captions of the literature


def test_flickr30k(tmp_path: Path) -> None:
    rows = (
        "image_name| comment_number| comment\n"
        '1000.jpg| 0| Two men , one "tall" .\n'
        "1000.jpg| 1| Several people .\n"
        '1001.jpg| 0| "A dog runs\n'  # a quotation mark that never closes
        "1001.jpg| 4   A dog runs across the grass .\n"  # broken so in the original
        "1002.jpg| 0| A lake\n"
    )
    write_files(tmp_path, jpegs(*(f"flickr30k_images/{n}.jpg" for n in (1000, 1001, 1002))) | {"results.csv": rows})
    source = open_source(tmp_path)
    assert captions_of(source) == {
        "flickr30k_images/1000.jpg": ('Two men , one "tall" .', "Several people ."),
        "flickr30k_images/1001.jpg": '"A dog runs',
        "flickr30k_images/1002.jpg": "A lake",
    }
    assert (source.left_out(), notes_of(source)) == ({}, {SHORT_ROWS: 1})


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("captions.txt", 'image,caption\n1.jpg,"A dog , a cat"\n1.jpg,B\n2.jpg,C\n'),
        ("Flickr8k.token.txt", "1.jpg#0\tA dog , a cat\n1.jpg#1\tB\n2.jpg#0\tC\n"),
    ],
)
def test_flickr8k(tmp_path: Path, table: str, text: str) -> None:
    write_files(tmp_path, jpegs("Images/1.jpg", "Images/2.jpg") | {table: text, "readme.txt": "see the paper"})
    source = open_source(tmp_path)
    assert captions_of(source) == {"Images/1.jpg": ("A dog , a cat", "B"), "Images/2.jpg": "C"}
    assert source.left_out() == {ORPHAN_TEXTS: 1}


def coco(number: int, *captions: str) -> str:
    return json.dumps(
        {
            "info": {"year": 2017},
            "images": [{"id": number, "file_name": f"{number:012d}.jpg", "license": 3}],
            "annotations": [{"id": i, "image_id": number, "caption": text} for i, text in enumerate(captions)],
        }
    )


def test_coco(tmp_path: Path) -> None:
    files = jpegs("train2017/000000000009.jpg", "val2017/000000000010.jpg", "test2017/000000000011.jpg")
    write_files(tmp_path, files)
    annotations = {"captions_train2017.json": coco(9, "one", "two"), "captions_val2017.json": coco(10, "three")}
    annotations["instances_val2017.json"] = "a file of hundreds of megabytes, never opened"
    write_files(tmp_path / "annotations", annotations)
    source = open_source(tmp_path)
    assert captions_of(source) == {"train2017/000000000009.jpg": ("one", "two"), "val2017/000000000010.jpg": "three"}
    assert list(splits_of(source).values()) == ["train", "val"]
    assert source.left_out() == {TEST_SPLIT: 1, PASSED_BY: 1}


def test_karpathys_splits(tmp_path: Path) -> None:
    images = [
        {
            "filename": f"{n}.jpg",
            "filepath": "val2014",
            "split": split,
            "sentences": [{"tokens": ["a"], "raw": f"s{n}"}],
        }
        for n, split in enumerate(("train", "restval", "val", "test"))
    ]
    images[0]["sentences"].append({"tokens": ["b"], "raw": "other"})
    write_files(tmp_path, jpegs(*(f"val2014/{n}.jpg" for n in range(4))))  # which his rows divide
    write_files(tmp_path, {"dataset_coco.json": json.dumps({"images": images, "dataset": "coco"})})
    source = open_source(tmp_path)
    assert captions_of(source) == {"val2014/0.jpg": ("s0", "other"), "val2014/1.jpg": "s1", "val2014/2.jpg": "s2"}
    assert list(splits_of(source).values()) == ["train", "train", "val"]


# ------------------------------------------------------------------ art

SEMART = "IMAGE_FILE\tDESCRIPTION\tAUTHOR\tTITLE\tTECHNIQUE\tDATE\tTYPE\tSCHOOL\tTIMEFRAME\n"


def test_semart(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("Images/1.jpg", "Images/2.jpg", "Images/3.jpg"))
    for number, split in enumerate(("train", "val", "test"), 1):
        row = f'{number}.jpg\tOf "him", né\tMÜLLER, Hans\tÉtude\tOil\t160{number}\tportrait\tGerman\t1601-1650\n'
        write_files(tmp_path, {f"semart_{split}.csv": (SEMART + row).encode("latin-1")})
    source = open_source(tmp_path)
    assert captions_of(source) == {
        "Images/1.jpg": "MÜLLER, Hans / Étude / 1601",
        "Images/2.jpg": "MÜLLER, Hans / Étude / 1602",
    }
    assert pictures_of(source)["Images/1.jpg"].columns["DESCRIPTION"] == 'Of "him", né'
    assert list(splits_of(source).values()) == ["train", "val"]
    assert (source.left_out(), notes_of(source)) == ({TEST_SPLIT: 1}, {CP1252_NOTE: 3})
    assert captions_of(open_source(tmp_path, caption_template="{TITLE}, {TECHNIQUE}"))["Images/1.jpg"] == "Étude, Oil"


def test_kaggles_wikiart_and_artbench(tmp_path: Path) -> None:
    names = ("claude-monet_water-lilies-1919(1).jpg", "rembrandt_night-watch.jpg", "utagawa-hiroshige_rain-1857-2.jpg")
    write_files(tmp_path, jpegs(*(f"Post_Impressionism/{name}" for name in names)))
    source = open_source(tmp_path)
    assert list(captions_of(source).values()) == [
        "Claude Monet / Water Lilies / Post Impressionism / 1919",
        "Rembrandt / Night Watch / Post Impressionism",
        "Utagawa Hiroshige / Rain / Post Impressionism / 1857",
    ]


def test_kaggles_wikiart_with_its_tables(tmp_path: Path) -> None:
    files = [f"Impressionism/claude-monet_{title}.jpg" for title in ("sunrise-1872", "lilies")]
    classes = (
        "filename,artist,genre,description,subset\n"
        f"{files[0]},claude monet,\"['Impressionism', 'Realism']\",sunrise-1872,train\n"
        f"{files[1]},claude monet,['Impressionism'],lilies,test\n"
    )
    numbers = f"file,artist,genre,style\n{files[0]},22,129,151\n"
    write_files(tmp_path, jpegs(*files) | {"classes.csv": classes, "wclasses.csv": numbers})
    write_files(tmp_path, {"style_train.csv": f"{files[0]},12\n"})
    source = open_source(tmp_path)
    caption = "claude monet / Sunrise / Impressionism / Impressionism, Realism / 1872"
    assert captions_of(source) == {files[0]: caption}
    assert source.left_out() == {TEST_SPLIT: 1}


def test_a_table_among_pictures_says_nothing_of_those_in_another_folder(tmp_path: Path) -> None:
    table = "file,caption\na.jpg,a cat\nb.jpg,a second cat\n"
    write_files(tmp_path, jpegs("cats/a.jpg", "dogs/b.jpg") | {"cats/captions.csv": table})
    source = open_source(tmp_path)
    assert captions_of(source)["cats/a.jpg"] == "a cat"
    assert "a second cat" not in captions_of(source).values()
    assert source.left_out() == {NO_PICTURE: 1}


def test_class_folders(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("Abstract_Expressionism/img_001.jpg", "B/002.op-art/img_002.jpg"))
    source = open_source(tmp_path, caption_template="painting, {folder}")
    assert list(captions_of(source).values()) == ["painting, Abstract Expressionism", "painting, op art"]
    assert list(captions_of(open_source(tmp_path)).values()) == ["Abstract Expressionism", "op art"]


def test_folders_that_say_nothing_are_no_captions(tmp_path: Path) -> None:
    write_files(
        tmp_path, jpegs("images/00012/a.jpg", "data/b.jpg", "part-000001/c.jpg", "batch_3/d.jpg", "JPEGImages/e.jpg")
    )
    assert set(captions_of(open_source(tmp_path)).values()) == {""}


def test_a_museums_table(tmp_path: Path) -> None:
    rows = (
        "Object ID;Title;Artist Display Name;Object Date;Image\n"
        "1;Étude;Unknown Artist;1889-01-01 00:00:00;C:\\scans\\img\\a.jpg\n"
        "2;Sea;Bob;;https://museum.example/full/b.jpg?size=big\n"
        "3;Gone;Bob;;C:\\scans\\img\\gone.jpg\n"
    )
    write_files(tmp_path, jpegs("img/a.jpg", "img/b.jpg") | {"objects.csv": rows.encode("utf-16")})
    source = open_source(tmp_path)
    assert source.caption_template == "{Artist Display Name} / {Title} / {Object Date}"
    assert captions_of(source) == {"img/a.jpg": "Étude / 1889", "img/b.jpg": "Bob / Sea"}
    assert source.left_out() == {NO_PICTURE: 1}


# ------------------------------------------------------------------ names, links, what is left out


def test_captions_behind_names_in_a_text(tmp_path: Path) -> None:
    lists = {
        "img/captions.txt": "a.jpg a red house\nb.jpg: two dogs, asleep\ngone.jpg a cat\n",
        "boxes.txt": "a.jpg -1 3\n",
    }
    source = open_source(write_files(tmp_path, jpegs("img/a.jpg", "img/b.jpg") | lists))
    assert captions_of(source) == {"img/a.jpg": "a red house", "img/b.jpg": "two dogs, asleep"}
    assert source.left_out() == {NO_PICTURE: 1, ORPHAN_TEXTS: 1}
    write_files(tmp_path, {"img/captions.txt": "a.jpg b.jpg\nb.jpg mask.png\n"})
    assert set(captions_of(open_source(tmp_path)).values()) == {""}


def test_names_from_a_mac_match_by_nfc(tmp_path: Path) -> None:
    composed, apart = "Étude", unicodedata.normalize("NFD", "Étude")
    write_files(tmp_path, jpegs(f"{apart}.jpg", f"b{composed}.jpg", f"c{apart}.jpg"))
    write_files(tmp_path, {f"{composed}.txt": "one", f"b{apart}.TXT": "two"})
    write_files(tmp_path, {"metadata.csv": f"file_name,text\n.\\c{composed}.jpg,three\n"})
    assert sorted(captions_of(open_source(tmp_path)).values()) == ["one", "three", "two"]


def test_linked_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    write_files(tmp_path / "elsewhere", jpegs("monet.jpg"))
    root = write_files(tmp_path / "mine", {"b.jpg": encoded(picture(7))})
    (root / "far").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    source = open_source(root)
    assert list(pictures_of(source)) == ["b.jpg", "far/monet.jpg"]
    assert source.left_out() == {"linked folders that were read already": 1, "links that lead nowhere": 1}
    for kind in (Parquet, Tars):
        target = tmp_path / kind.__name__
        write_parquet(
            target / "a.parquet", [{"image": encoded(picture(0))}], schema=pa.schema([("image", pa.binary())])
        )
        if kind is Tars:
            (target / "a.parquet").unlink()
            write_tar(target / "a.tar", [("0.jpg", encoded(picture(0)))])
        around = tmp_path / f"around {kind.__name__}"
        around.mkdir()
        (around / "data").symlink_to(target)
        assert isinstance(open_source(around), kind)
        assert len(pictures_of(open_source(around))) == 1


def test_every_suffix_of_a_jpeg_is_read_and_the_unreadable_is_counted(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("a.jpe", "b.JFIF", "c.JPG", "d.jpeg"))
    write_files(
        tmp_path, {"e.jxl": b"", "f.JXL": b"", "g.zip": b"PK", "h.csv": "x\ny\n", "i.json": "{broken", "j.md": ""}
    )
    source = open_source(tmp_path)
    assert len(pictures_of(source)) == 4
    assert source.left_out() == {
        "files .jxl: no reader for this format": 2,
        "files .zip: an archive; unpack it": 1,
        NO_TABLE: 1,
        DAMAGED_TABLE: 1,
    }


# ------------------------------------------------------------------ splits by numbers

ON_NUMBERS = "rows whose `partition` is a number, read as 0 train, 1 val, 2 test"
ON_A_FLAG = "rows whose split was read from the flag `is_train`"
ABC = ("a.jpg", "b.jpg", "c.jpg")


@pytest.mark.parametrize(
    ("column", "cells", "splits", "note"),
    [
        ("partition", (0, 1, 2), {"a.jpg": "train", "b.jpg": "val"}, ON_NUMBERS),
        ("is_train", (1, 0, 1), {"a.jpg": None, "c.jpg": None}, ON_A_FLAG),
        (
            "partition",
            (0, 1, 1),
            dict.fromkeys(ABC),
            "rows whose `partition` is a number that says no split; write train, val or test there",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet table", "parquet"])
def test_splits_by_numbers(tmp_path: Path, kind: str, column: str, cells: Any, splits: Any, note: str) -> None:
    if kind == "parquet":
        rows = [{"image": encoded(picture(n)), "filename": ABC[n], column: cell} for n, cell in enumerate(cells)]
        write_parquet(tmp_path / "train.parquet", rows, schema=None)
    else:
        write_files(tmp_path, jpegs(*ABC))
        rows = [{"image_id": file, column: cell} for file, cell in zip(ABC, cells)]
    if kind == "parquet table":
        write_parquet(tmp_path / "list_eval_partition.parquet", rows, schema=None)
    if kind == "csv":
        lines = "".join(f"{file},{cell}\n" for file, cell in zip(ABC, cells))
        write_files(tmp_path, {"list_eval_partition.csv": f"image_id,{column}\n{lines}"})
    source = open_source(tmp_path)
    found = pictures_of(source).values()
    assert {item.columns.get("filename") or item.name: item.split for item in found} == splits
    counted = len(found) if kind == "parquet" else 3
    assert notes_of(source) == {note: counted}


def test_celebas_list_of_splits(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs(*(f"img/{name}" for name in ABC)))
    write_files(tmp_path, {"list_eval_partition.txt": "a.jpg 0\nb.jpg 1\nc.jpg 2\n"})
    source = open_source(tmp_path)
    assert splits_of(source) == {"img/a.jpg": "train", "img/b.jpg": "val"}
    assert source.left_out() == {TEST_SPLIT: 1}


# ------------------------------------------------------------------ what lies beside pictures for other ends


def test_boxes_of_yolo_are_no_captions(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("car/a.jpg", "car/b.jpg", "car/c.jpg", "car/d.jpg"))
    write_files(tmp_path, {"car/a.txt": "0 0.5 0.5 0.2 0.3\n12 .5 1 0 1e-3\n", "car/b.txt": "3 0 0 1 0 1 1 0 1"})
    write_files(tmp_path, {"car/c.txt": "4 0.5 horses", "car/d.txt": ""})
    source = open_source(tmp_path)
    captions = dict.fromkeys(("car/a.jpg", "car/b.jpg", "car/d.jpg"), "car")
    assert captions_of(source) == captions | {"car/c.jpg": "4 0.5 horses"}
    assert notes_of(source) == {BOXES_NOTE: 2}


def test_boxes_of_yolo_in_a_tar(tmp_path: Path) -> None:
    members = [("a.jpg", encoded(picture(0))), ("a.txt", b"0 0.5 0.5 0.2 0.3")]
    source = open_source(write_tar(tmp_path / "a.tar", members))
    assert captions_of(source) == {"a.tar a": ""}
    assert notes_of(source) == {BOXES_NOTE: 1}


# ------------------------------------------------------------------ names that differ in the suffix


def test_a_table_that_names_pictures_by_another_suffix(tmp_path: Path) -> None:
    pngs = {f"images/{name}.png": encoded(picture(n), "PNG") for n, name in enumerate("abc")}
    write_files(tmp_path, pngs)
    write_files(tmp_path, {"table.csv": "image,caption\na.jpg,a cat\nb.JPEG,a dog\nc.png,a cow\nc.jpg,no\nd.jpg,no\n"})
    source = open_source(tmp_path)
    assert captions_of(source) == {"images/a.png": "a cat", "images/b.png": "a dog", "images/c.png": "a cow"}
    assert notes_of(source) == {OTHER_SUFFIX: 2}
    assert source.left_out() == {NO_PICTURE: 2}


def test_a_table_all_of_whose_names_have_another_suffix(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": encoded(picture(0), "PNG"), "masks/b.png": encoded(picture(1), "PNG")})
    write_files(tmp_path, {"table.csv": "image,caption\na.jpg,a cat\n"})
    source = open_source(tmp_path)
    assert captions_of(source)["a.png"] == "a cat"
    assert notes_of(source) == {OTHER_SUFFIX: 1}
    write_files(tmp_path, {"table.csv": "image,caption\na.png,a cat\nimages/b.jpg,a dog\n"})
    assert captions_of(open_source(tmp_path))["masks/b.png"] == ""


@pytest.mark.parametrize(
    ("picture_name", "beside"),
    [("a.jpg", "a.jpg.supplemental-metadata"), ("a.jpg", "a.jpg.suppl"), ("a(1).jpg", "a.jpg.supplemental-meta(1)")],
)
def test_newer_takeouts_of_google(tmp_path: Path, picture_name: str, beside: str) -> None:
    write_files(tmp_path, jpegs(picture_name))
    write_files(tmp_path, {f"{beside}.json": json.dumps({"title": picture_name, "description": "a cat"})})
    assert captions_of(open_source(tmp_path)) == {picture_name: "a cat"}


# ------------------------------------------------------------------ folders that tell columns (Hive, Spark)


def test_folders_that_tell_columns_of_pictures(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("style=Cubism/artist=Juan%20Gris/a.jpg", "style=Fauvism/artist=Matisse/b.jpg"))
    write_files(tmp_path, jpegs("style=Fauvism/artist=__HIVE_DEFAULT_PARTITION__/c.jpg"))
    source = open_source(tmp_path)
    assert source.columns == ("file_name", "style", "artist")
    assert captions_of(source) == {
        "style=Cubism/artist=Juan%20Gris/a.jpg": "Juan Gris / Cubism",
        "style=Fauvism/artist=Matisse/b.jpg": "Matisse / Fauvism",
        "style=Fauvism/artist=__HIVE_DEFAULT_PARTITION__/c.jpg": "Fauvism",
    }
    assert source.describe()["folder_columns"] == ["style", "artist"]


def test_folders_that_tell_columns_of_a_table(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("images/a.jpg", "images/b.jpg"))
    write_files(tmp_path, {"tables/style=Cubism/0.csv": "file,title\na.jpg,Violin\n"})
    write_parquet(tmp_path / "tables/style=Fauvism/0.parquet", [{"file": "b.jpg", "title": "Window"}], schema=None)
    assert captions_of(open_source(tmp_path)) == {
        "images/a.jpg": "Violin / Cubism",
        "images/b.jpg": "Window / Fauvism",
    }


def test_folders_that_tell_columns_of_parquet(tmp_path: Path) -> None:
    for number, style in enumerate(("Cubism", "Fauvism")):
        row = {"title": f"No. {number}", "image": {"bytes": encoded(picture(number)), "path": None}}
        write_parquet(tmp_path / f"style={style}" / f"{number}.parquet", [row], schema=None)
    source = open_source(tmp_path)
    assert source.columns == ("style", "title", "filename")
    assert sorted(captions_of(source).values()) == ["No. 0 / Cubism", "No. 1 / Fauvism"]
    assert source.describe()["folder_columns"] == ["style"]


def test_folders_that_tell_columns_of_tars(tmp_path: Path) -> None:
    members = [("artist=Braque/a.jpg", encoded(picture(1))), ("artist=Braque/b.jpg", encoded(picture(2)))]
    (tmp_path / "style=Cubism").mkdir()
    write_tar(tmp_path / "style=Cubism" / "0.tar", members)
    source = open_source(tmp_path)
    assert set(captions_of(source).values()) == {"Braque / Cubism"}
    assert source.describe()["folder_columns"] == ["style"]


# ------------------------------------------------------------------ conversations about pictures

QUESTION, ANSWER = {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "<image>\na red house"}


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [QUESTION, ANSWER, QUESTION, {"from": "gpt", "value": "yes"}]},
        {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a red house"}]},
        {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "a red house"}]}]},
        {"caption": "a red house", "conversations": [QUESTION, {"from": "gpt", "value": "It is a house."}]},
    ],
)
@pytest.mark.parametrize("kind", ["json", "jsonl", "beside", "parquet"])
def test_the_first_answer_of_a_conversation_is_the_caption(tmp_path: Path, row: dict[str, Any], kind: str) -> None:
    if kind == "parquet":
        image = {"bytes": encoded(picture(0)), "path": "a.jpg"}
        write_parquet(tmp_path / "0.parquet", [{**row, "image": image}], schema=None)
    else:
        table = {"json": "llava.json", "jsonl": "llava.jsonl", "beside": "a.json"}[kind]
        rows = [{"id": "1", "image": "a.jpg", **row}]
        content = json.dumps(rows if kind == "json" else rows[0])
        write_files(tmp_path, {**jpegs("a.jpg"), table: content})
    assert list(captions_of(open_source(tmp_path)).values()) == ["a red house"]


# ------------------------------------------------------------------ rows of several pictures, pictures of one name


@pytest.mark.parametrize(
    "table",
    {
        "m.jsonl": '{"file_names": ["a.jpg", "b.jpg"], "text": "two"}\n{"file_names": ["c.jpg"], "text": "one"}',
        "metadata.jsonl": '{"file_names": ["a.jpg", "b.jpg"], "text": "two"}\n{"file_names": ["c.jpg"], "text": "one"}',
        "m.csv": "file_names,text\n\"['a.jpg', 'b.jpg']\",two\n['c.jpg'],one\n",
        "n.csv": "images,text\na.jpg; b.jpg,two\nc.jpg,one\n",
    }.items(),
)
def test_a_row_may_name_several_pictures(tmp_path: Path, table: tuple[str, str]) -> None:
    write_files(tmp_path, {**jpegs("a.jpg", "b.jpg", "c.jpg"), table[0]: table[1]})
    source = open_source(tmp_path)
    assert captions_of(source) == {"a.jpg": "two", "b.jpg": "two", "c.jpg": "one"}
    assert source.left_out() == {}


def test_a_list_beside_the_name_of_a_picture_names_none(tmp_path: Path) -> None:
    row = {"file_name": "a.jpg", "similar": ["b.jpg"], "text": "a cat"}
    write_files(tmp_path, {**jpegs("a.jpg", "b.jpg"), "m.jsonl": json.dumps(row)})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "a cat", "b.jpg": ""}


@pytest.mark.parametrize("table", ["A/m.csv", "A/tables/m.csv", "A.csv"])
def test_of_pictures_of_one_name_a_table_means_that_of_its_folder(tmp_path: Path, table: str) -> None:
    write_files(tmp_path, jpegs("A/images/1.jpg", "B/images/1.jpg", "A/images/2.jpg", "B/images/2.jpg"))
    write_files(tmp_path, {table: "file,caption\n1.jpg,one\n2.jpg,two\n"})
    found = captions_of(open_source(tmp_path))
    assert (found["A/images/1.jpg"], found["A/images/2.jpg"], found["B/images/1.jpg"]) == ("one", "two", "B")


def test_of_pictures_of_one_name_a_table_means_that_of_its_split(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("train/1.jpg", "validation/1.jpg"))
    write_files(tmp_path, {"captions_train.csv": "file,caption\n1.jpg,one", "val.csv": "file,caption\n1.jpg,other"})
    assert captions_of(open_source(tmp_path)) == {"train/1.jpg": "one", "validation/1.jpg": "other"}


@pytest.mark.parametrize("table", ["m.csv", "metadata.csv"])
def test_rows_that_could_mean_several_pictures_are_counted_with_an_example(tmp_path: Path, table: str) -> None:
    write_files(tmp_path, jpegs("A/1.jpg", "B/1.jpg", "A/2.jpg", "B/2.jpg"))
    write_files(tmp_path, {table: "file_name,caption\n1.jpg,one\n2.jpg,two\n"})
    assert open_source(tmp_path).left_out() == {f"{SEVERAL} (A/1.jpg or B/1.jpg)": 2}


# ------------------------------------------------------------------ names without a suffix


def test_pictures_without_a_suffix_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("12345", "scans/12346", "b.jpg"))
    write_files(tmp_path, {"README": "read me", "empty": b"", "12345.txt": "a house", "scans/.hidden": jpegs("x")["x"]})
    write_files(tmp_path, {"m.csv": "id,title,artist\n12346,One,Me\nb.jpg,Two,You\n"})
    source = open_source(tmp_path)
    assert captions_of(source) == {"12345": "a house", "scans/12346": "Me / One", "b.jpg": "You / Two"}
    assert notes_of(source) == {NO_SUFFIX: 2}


def test_a_collection_may_hold_nothing_but_pictures_without_a_suffix(tmp_path: Path) -> None:
    write_files(tmp_path, {"1": encoded(picture(1), "PNG"), "1.txt": "one"})
    assert captions_of(open_source(tmp_path)) == {"1": "one"}


def test_boxes_in_a_folder_of_labels_are_no_captions_and_texts_in_one_of_captions_are(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("train/images/a.jpg", "train/images/b.jpg"))
    write_files(tmp_path, {"train/labels/a.txt": "0 0.5 0.5 0.2 0.3\n", "train/labels/b.txt": "", "classes.txt": "cat"})
    source = open_source(tmp_path)
    assert set(captions_of(source).values()) == {""}
    assert source.left_out() == {ORPHAN_TEXTS: 2}
    write_files(tmp_path, {"train/captions/a.txt": "a cat", "train/captions/b.txt": "a dog"})
    assert list(captions_of(open_source(tmp_path)).values()) == ["a cat", "a dog"]


# ------------------------------------------------------------------ what downloaders, museums and annotators write

GALLERY_DL = {"category": "danbooru", "subcategory": "tag", "id": 1}


@pytest.mark.parametrize(
    ("beside", "row", "caption"),
    [
        ("a.jpg.json", {**GALLERY_DL, "tag_string": "cat sky", "tag_string_artist": "me"}, "cat sky"),
        ("a.jpg.json", {**GALLERY_DL, "tags": ["cat", "sky"]}, "cat, sky"),
        ("a.json", {"category": "Portrait", "tags": ["oil"]}, "Portrait"),
        ("a.json", {"tags": [{"id": "1", "name": "cat"}, {"id": "2", "name": "blue_sky"}]}, "cat, blue_sky"),
        ("a.info.json", {"id": "x", "title": "A House", "description": "long"}, "A House"),
        ("a.json", {"artObject": {"title": "Night Watch", "principalMaker": "Rembrandt"}}, "Rembrandt / Night Watch"),
        ("a.json", {"caption": {"en": "a cat"}}, "a cat"),
        ("a.json", {"data": {"title": "T", "artist_title": "Seurat"}, "info": {}, "config": {}}, "Seurat / T"),
        ("a.json", {"titles": [{"title": "T", "type": "x"}], "creators": [{"description": "M"}]}, "M / T"),
        ("a.json", {"title": ["Das Haus"], "dcCreator": ["Monet"]}, "Monet / Das Haus"),
        ("a.json", {"imagePath": "a.jpg", "imageData": "abcd", "shapes": [{"label": "tree"}] * 2}, "tree"),
        ("a.json", {"meta": {"caption": "a cat"}, "url": "http://x"}, "a cat"),
        ("a.json", {"caption": "<p>Water &amp; <em>light</em><br />of 1906</p>"}, "Water & light of 1906"),
    ],
)
def test_what_downloaders_and_museums_write_beside_a_picture(
    tmp_path: Path, beside: str, row: dict[str, Any], caption: str
) -> None:
    write_files(tmp_path, {**jpegs("a.jpg"), beside: json.dumps(row)})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": caption}


def test_a_list_of_records_beside_a_picture(tmp_path: Path) -> None:
    write_files(tmp_path, {**jpegs("a.jpg"), "a.json": json.dumps([{"caption": "one"}, {"caption": "two"}])})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": ("one", "two")}


LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/upload/1/a.jpg"},
        "annotations": [{"result": [{"type": "textarea", "value": {"text": ["a red house"]}}]}],
    },
    {
        "id": 2,
        "data": {"image": "/data/upload/1/b.jpg"},
        "annotations": [{"result": [{"type": "choices", "value": {"choices": ["lake", "sky"]}}]}, {"result": []}],
    },
]
VIA = {
    f"{name}.jpg123": {"filename": f"{name}.jpg", "size": 1, "regions": [], "file_attributes": {"caption": caption}}
    for name, caption in (("a", "a red house"), ("b", "lake, sky"))
}


@pytest.mark.parametrize("content", [LABEL_STUDIO, VIA, {"_via_settings": {}, "_via_img_metadata": VIA}])
def test_annotations_of_label_studio_and_via(tmp_path: Path, content: Any) -> None:
    write_files(tmp_path, {**jpegs("images/a.jpg", "images/b.jpg"), "annotations.json": json.dumps(content)})
    assert list(captions_of(open_source(tmp_path)).values()) == ["a red house", "lake, sky"]


def test_pandas_writes_numbers_in_a_column_without_a_name(tmp_path: Path) -> None:
    rows = ",image_url,title,author\n0,http://x/y,Starry Night,van Gogh\n1,http://x/z,Irises,van Gogh\n"
    write_files(tmp_path, {**jpegs("images/0.jpg", "images/1.jpg"), "metadata.csv": rows})
    found = captions_of(open_source(tmp_path))
    assert found == {"images/0.jpg": "van Gogh / Starry Night", "images/1.jpg": "van Gogh / Irises"}


def test_records_that_a_table_has_as_text(tmp_path: Path) -> None:
    rows = "a.jpg,The Aviator,\"[{'description': 'Leger', 'role': 'artist'}]\"\n"
    write_files(tmp_path, {**jpegs("a.jpg"), "t.csv": f"image,title,creators\n{rows}"})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "Leger / The Aviator"}


def test_artemis(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("Cubism/pablo-picasso_violin-1912.jpg", "Cubism/juan-gris_guitar-1913.jpg"))
    rows = "Cubism,{0},awe,Odd shapes.,2\nCubism,{0},fear,Sharp.,2\n".format("pablo-picasso_violin-1912")
    rows += "Cubism,juan-gris_guitar-1913,awe,Warm colours.,1\n"
    write_files(tmp_path, {"artemis.csv": f"art_style,painting,emotion,utterance,repetition\n{rows}"})
    assert captions_of(open_source(tmp_path)) == {
        "Cubism/juan-gris_guitar-1913.jpg": "Warm colours.",
        "Cubism/pablo-picasso_violin-1912.jpg": ("Odd shapes.", "Sharp."),
    }


def test_behind_a_caption_without_a_header_its_language_may_stand(tmp_path: Path) -> None:
    write_files(tmp_path, {**jpegs("a.jpg", "b.jpg"), "captions.txt": "a.jpg|a cat|en\nb.jpg|dogs|en\n"})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "a cat", "b.jpg": "dogs"}


@pytest.mark.parametrize("names", [("1.jpg", "2.jpg"), ("1", "2")])
def test_the_same_names_in_the_folders_of_two_splits(tmp_path: Path, names: tuple[str, str]) -> None:
    write_files(tmp_path, jpegs("train/1.jpg", "train/2.jpg", "test/1.jpg", "test/2.jpg"))
    for split in ("train", "test"):
        rows = "".join(f"{name},{split} {name}\n" for name in names)
        write_files(tmp_path, {f"{split}.csv": f"id,caption\n{rows}"})
    source = open_source(tmp_path)
    assert list(captions_of(source).values()) == [f"train {name}" for name in names]
    assert source.left_out() == {TEST_SPLIT: 2}


@pytest.mark.parametrize("folder", ["json", "metadata"])
def test_json_in_a_folder_of_its_own(tmp_path: Path, folder: str) -> None:
    write_files(tmp_path, {**jpegs("images/a.jpg", "images/b.jpg"), f"{folder}/a.json": '{"title": "A House"}'})
    write_files(tmp_path, {"images/b.json": '{"title": "A Lake"}', f"{folder}/b.json": '{"title": "Another"}'})
    assert captions_of(open_source(tmp_path)) == {"images/a.jpg": "A House", "images/b.jpg": "A Lake"}


def test_captions_that_vizwiz_rejects_are_none(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("val/a.jpg", "val/b.jpg"))
    annotations = [
        {"caption": "a can of soup", "image_id": 1, "is_rejected": False},
        {"caption": "Quality issues are too severe.", "image_id": 1, "is_rejected": True},
        {"caption": "Quality issues are too severe.", "image_id": 2, "is_rejected": True},
    ]
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    write_files(tmp_path, {"annotations/val.json": json.dumps({"images": images, "annotations": annotations})})
    source = open_source(tmp_path)
    assert captions_of(source) == {"val/a.jpg": "a can of soup", "val/b.jpg": ""}
    assert notes_of(source) == {REJECTED: 2}


def test_rejected_rows_of_a_table(tmp_path: Path) -> None:
    rows = "a.jpg,a cat,0\na.jpg,spam,1\nb.jpg,spam,True\n"
    write_files(tmp_path, {**jpegs("a.jpg", "b.jpg"), "t.csv": f"image,caption,is_rejected\n{rows}"})
    source = open_source(tmp_path)
    assert captions_of(source) == {"a.jpg": "a cat", "b.jpg": ""}
    assert notes_of(source) == {REJECTED: 2}


def test_kohyas_folder_for_regularisation_is_left_out(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("img/10_me person/a.jpg", "reg/1_person/b.jpg", "reg/1_person/c.jpg"))
    write_files(tmp_path, {"reg/1_person/b.txt": "a person"})
    source = open_source(tmp_path)
    assert captions_of(source) == {"img/10_me person/a.jpg": "me person"}
    assert source.left_out() == {REGULARISATION: 2}
    assert source.describe()["regularisation"] == "left out"
    assert len(captions_of(open_source(tmp_path / "reg"))) == 2


def test_pictures_of_one_post_share_its_text(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("2020_UTC.jpg", "2021_UTC_1.jpg", "2021_UTC_2.jpg", "x_1.jpg"))
    write_files(tmp_path, {"2020_UTC.txt": "a house", "2021_UTC.txt": "two lakes", "x.txt": "another"})
    found = captions_of(open_source(tmp_path))
    assert list(found.values()) == ["a house", "two lakes", "two lakes", ""]


def test_what_wikidata_calls_a_painting(tmp_path: Path) -> None:
    link = "http://commons.wikimedia.org/wiki/Special:FilePath/Starry%20Night.jpg"
    write_files(tmp_path, {**jpegs("Starry Night.jpg"), "q.csv": f"itemLabel,creatorLabel,image\nStarry,Gogh,{link}\n"})
    assert captions_of(open_source(tmp_path)) == {"Starry Night.jpg": "Gogh / Starry"}


def test_pictures_in_a_second_column_are_left_out_where_nothing_describes_them(tmp_path: Path) -> None:
    """What others were made from, as in sets for ControlNet, or padded copies."""
    rows = [{"image": f"images/{n}.png", "padded": f"padded/p_{n}.png", "text": f"picture {n}"} for n in range(3)]
    write_files(tmp_path, jpegs(*(row[name] for row in rows for name in ("image", "padded"))))
    write_files(tmp_path, {"m.jsonl": "\n".join(map(json.dumps, rows)), "padded/p_2.txt": "its own"})
    source = open_source(tmp_path)
    assert captions_of(source) == {**{f"images/{n}.png": f"picture {n}" for n in range(3)}, "padded/p_2.png": "its own"}
    assert source.left_out() == {COMPANIONS: 2}


def test_tables_of_pairs_without_a_word_of_them_leave_no_picture_out(tmp_path: Path) -> None:
    write_files(tmp_path, {**jpegs("cat/a.jpg", "cat/b.jpg", "dog/c.jpg"), "p.csv": "file,duplicate_of\na.jpg,b.jpg\n"})
    source = open_source(tmp_path)
    assert captions_of(source) == {"cat/a.jpg": "cat", "cat/b.jpg": "cat", "dog/c.jpg": "dog"}
    assert not source.left_out()


@pytest.mark.parametrize(
    ("name", "content", "caption"),
    [
        ("caption.txt", "a house\n", "a house"),
        ("info.json", '{"artist": "Bo", "title": "House"}', "Bo / House"),
        ("metadata.json", '{"artist": "Bo", "title": "House"}', "Bo / House"),
        ("README.txt", "Thank you for the download.", ""),
    ],
)
def test_a_folder_for_each_picture(tmp_path: Path, name: str, content: str, caption: str) -> None:
    write_files(tmp_path, {**jpegs("1/image.jpg", "2/image.jpg"), f"1/{name}": content, f"2/{name}": content})
    source = open_source(tmp_path)
    assert captions_of(source) == {"1/image.jpg": caption, "2/image.jpg": caption}
    assert source.left_out() == ({} if caption else {ORPHAN_TEXTS: 2})


def test_a_library_of_eagle(tmp_path: Path) -> None:
    """A thumbnail beside each picture, and settings of the library that are called metadata.json too."""
    for name, note in (("K1", "a castle on a hill"), ("K2", "")):
        row = {
            "id": name,
            "name": "x",
            "ext": "jpg",
            "tags": ["castle", "blue"],
            "isDeleted": False,
            "annotation": note,
        }
        write_files(tmp_path, jpegs(f"images/{name}.info/x.jpg"))
        write_files(tmp_path, jpegs(f"images/{name}.info/x_thumbnail.png", width=4, height=4))
        write_files(tmp_path, {f"images/{name}.info/metadata.json": json.dumps(row)})
    write_files(tmp_path, {"metadata.json": json.dumps({"folders": [{"id": "F", "name": "Castles"}], "version": "4"})})
    assert captions_of(open_source(tmp_path)) == {
        "images/K1.info/x.jpg": "a castle on a hill",
        "images/K2.info/x.jpg": "castle, blue",
    }


def test_the_picture_that_was_made_is_the_one_that_the_prompt_tells_of(tmp_path: Path) -> None:
    """ControlNet's fill50k."""
    write_files(tmp_path, jpegs("source/0.png", "target/0.png"))
    write_files(tmp_path, {"prompt.json": '{"source": "source/0.png", "target": "target/0.png", "prompt": "a circle"}'})
    source = open_source(tmp_path)
    assert captions_of(source) == {"target/0.png": "a circle"}
    assert source.left_out() == {COMPANIONS: 1}
