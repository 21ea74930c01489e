"""`sources/parquet/parquet.py`: WikiArt's layout and its relatives, and files that are not whole."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from diffusion_art.captions.captioner import ART_TEMPLATE
from diffusion_art.errors import UserError
from diffusion_art.sources.base import BadPicture, Item, LeftOut, Picture, Source
from diffusion_art.sources.detect import open_source
from diffusion_art.sources.parquet.parquet import MORE, ROWS_PER_CHUNK, Parquet
from diffusion_art.sources.paths.splits import TEST_SPLIT
from tests.fakes_sources import (
    captions_of,
    encoded,
    jpegs,
    notes_of,
    picture,
    pictures_of,
    read_all,
    wikiart_folder,
    wikiart_rows,
    write_files,
    write_parquet,
)


def read(source: Parquet) -> list[Item]:
    return [item for chunk in source.chunks() for item in source.pictures(chunk)]


def test_wikiarts_layout(tmp_path: Path) -> None:
    source = Parquet(wikiart_folder(tmp_path / "WikiArt", count=5))
    assert isinstance(source, Source)
    assert (source.name, source.count, source.caption_template) == ("wikiart", 10, ART_TEMPLATE)
    assert source.columns is not None
    assert "embeddings_pca512" not in source.columns
    items = read(source)
    for item, row in zip(items, wikiart_rows(10), strict=True):
        assert isinstance(item, Picture)
        assert item.image == item.identity == row["image"]["bytes"]
        assert item.columns == {name: row[name] for name in source.columns}
    assert items[7].name == "train-00001-of-00002.parquet row 2 (etude-7.jpg)"


def test_chunks_may_be_read_in_any_order_and_after_pickling(tmp_path: Path) -> None:
    """Batches of the file end elsewhere than chunks do: row groups of 300, pages of a few rows."""
    rows = wikiart_rows(500)
    write_parquet(tmp_path / "a.parquet", rows, row_group_size=300, data_page_size=2000)
    source = pickle.loads(pickle.dumps(Parquet(tmp_path)))
    chunks = list(source.chunks())
    assert [(chunk.row_group, chunk.stop - chunk.start) for chunk in chunks] == [
        (0, ROWS_PER_CHUNK),
        (0, ROWS_PER_CHUNK),
        (0, 300 - 2 * ROWS_PER_CHUNK),
        (1, ROWS_PER_CHUNK),
        (1, 200 - ROWS_PER_CHUNK),
    ]
    titles = {}
    for number in (3, 0, 2, 1, 4, 0):  # as several processes share them, with gaps
        titles[number] = [item.columns["title"] for item in source.pictures(chunks[number])]
    in_order = [title for number in range(5) for title in titles[number]]
    assert in_order == [row["title"] for row in rows]


def test_class_labels_numbers_and_lists_become_text(tmp_path: Path) -> None:
    features = {"style": {"names": ["Cubism", "Op Art"], "_type": "ClassLabel"}}
    schema = pa.schema(
        [
            ("jpg", pa.binary()),
            ("style", pa.int64()),
            ("year", pa.float64()),
            ("tags", pa.list_(pa.string())),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    row = {"jpg": encoded(picture(0)), "style": 1, "year": 1968.0, "tags": ["sea", "sky"]}
    unlabelled = row | {"style": -1, "year": None}
    write_parquet(tmp_path / "a.parquet", [row, unlabelled], schema=schema)
    source = Parquet(tmp_path / "a.parquet")
    first, second = read(source)
    assert isinstance(first, Picture)
    assert isinstance(second, Picture)
    assert first.columns == {"style": "Op Art", "year": "1968.0", "tags": "sea, sky"}
    assert second.columns == {"style": "", "year": "", "tags": "sea, sky"}


def test_a_row_without_bytes_is_a_bad_picture(tmp_path: Path) -> None:
    rows = wikiart_rows(2)
    rows[1]["image"] = {"bytes": None, "path": "elsewhere.jpg"}
    write_parquet(tmp_path / "a.parquet", rows)
    assert read(Parquet(tmp_path))[1] == BadPicture(
        "a.parquet row 1 (elsewhere.jpg)", "no image bytes in column `image`"
    )


def test_the_description_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    one = Parquet(wikiart_folder(tmp_path / "one"))
    same = Parquet(wikiart_folder(tmp_path / "two"))
    other = Parquet(wikiart_folder(tmp_path / "three", count=11))
    assert one.describe() == same.describe() != other.describe()
    json.dumps(one.describe())


def test_mistakes_name_the_file_and_the_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*nowhere"):
        Parquet(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.parquet file"):
        Parquet(tmp_path / "empty")

    whole = write_parquet(tmp_path / "whole.parquet", wikiart_rows(50))
    cut = tmp_path / "cut" / "a.parquet"
    cut.parent.mkdir()
    cut.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"a\.parquet is no whole parquet file"):
        Parquet(cut)

    damaged = bytearray(whole.read_bytes())
    damaged[100:4000] = b"\xff" * 3900
    cut.write_bytes(damaged)
    with pytest.raises(UserError, match=r"a\.parquet row group 0 cannot be read"):
        read(Parquet(cut))

    textual = pa.schema([("title", pa.string())])
    write_parquet(tmp_path / "text.parquet", [{"title": "x"}], schema=textual)
    with pytest.raises(UserError, match=r"there is no column of image bytes among \['title'\]"):
        Parquet(tmp_path / "text.parquet")
    with pytest.raises(UserError, match="`thumbnail` is no column of image bytes"):
        Parquet(whole, image_column="thumbnail")


@pytest.mark.parametrize(
    ("row", "helps"),
    [
        ({"images": [1], "text": "a"}, r"`images` is list<.*int64>"),
        ({"image": "a.jpg", "text": "a"}, r"`image` is string\. .*source=csv source\.path=FILE"),
        (
            {"URL": "http://x/a.jpg", "TEXT": "a"},
            r"links: .*img2dataset.*left out: 1 files \.tfrecord",
        ),
    ],
)
def test_files_without_images_say_what_helps(tmp_path: Path, row: dict[str, Any], helps: str) -> None:
    write_parquet(tmp_path / "00000.parquet", [row], schema=None)
    write_files(tmp_path, {"00000.tfrecord": "x"})
    with pytest.raises(UserError, match=helps):
        Parquet(tmp_path)


def test_a_second_column_of_images_is_counted(tmp_path: Path) -> None:
    row = {"input_image": encoded(picture(0)), "embedding": b"x", "edited_image": encoded(picture(1)), "prompt": "a"}
    file = write_parquet(tmp_path / "a.parquet", [row], schema=None)
    told = {"pictures of column `input_image` (source.image_column=input_image takes them)": 1}
    assert Parquet(tmp_path).left_out() == told
    with pytest.raises(UserError, match=r"`picture` is no column .* Those with images: edited_image, "):
        Parquet(file, image_column="picture")


def test_json_as_the_hub_has_it_of_a_webdataset(tmp_path: Path) -> None:
    rows = [
        {"jpg": encoded(picture(0)), "json": {"caption": "one", "size": {"w": 1}, "split": "test"}, "__key__": "0"},
        {"jpg": encoded(picture(1)), "json": None, "__key__": "1"},
    ]
    write_parquet(tmp_path / "train-0.parquet", rows, schema=None)
    source = Parquet(tmp_path)
    assert source.columns == ("__key__", "caption", "split", "filename")
    assert list(captions_of(source).values()) == ["one", ""]


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_columns_are_matched_by_name(tmp_path: Path) -> None:
    data = [encoded(picture(number)) for number in range(2)]
    write_parquet(tmp_path / "a.parquet", [{"title": "T", "image": data[0], "artist": "A"}], schema=None)
    more = {"artist": "B", "museum": "M", "jpg": data[1], "title": "U"}
    write_parquet(tmp_path / "b.parquet", [more], schema=None)
    write_parquet(tmp_path / "links.parquet", [{"url": "x"}], schema=None)
    source = Parquet(tmp_path)
    assert source.columns == ("title", "artist", "museum", "filename")
    assert list(captions_of(source).values()) == ["A / T", "B / U"]
    assert source.left_out() == {"parquet files without pictures": 1}


@pytest.mark.parametrize("field", ["Sequence", "List", None])
def test_lists_of_classes_and_readable_names(tmp_path: Path, field: str | None) -> None:
    names = {"names": ["Unknown Artist", "claude-monet", "rembrandt"], "_type": "ClassLabel"}
    tags = {"names": ["sea_side", "b"], "_type": "ClassLabel"}
    features = {"artist": names, "style": {"names": ["Abstract_Expressionism"], "_type": "ClassLabel"}}
    features["tags"] = [tags] if field is None else {"feature": tags, "_type": field}
    schema = pa.schema(
        [("image", pa.binary()), ("artist", pa.int64()), ("style", pa.int64()), ("tags", pa.list_(pa.int64()))],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = [{"image": encoded(picture(n)), "artist": n, "style": 0, "tags": [0, 1]} for n in range(3)]
    write_parquet(tmp_path / "a.parquet", rows, schema=schema)
    source = Parquet(tmp_path, caption_template="{artist} / {style} / {tags}")
    assert list(captions_of(source).values()) == [
        "Abstract Expressionism / sea side, b",
        "Claude Monet / Abstract Expressionism / sea side, b",
        "Rembrandt / Abstract Expressionism / sea side, b",
    ]


def test_a_label_alone_is_the_caption(tmp_path: Path) -> None:
    features = {"label": {"names": ["art_nouveau"], "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", pa.binary()), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    write_parquet(tmp_path / "a.parquet", [{"image": encoded(picture(0)), "label": 0}], schema=schema)
    assert list(captions_of(Parquet(tmp_path)).values()) == ["art nouveau"]


def test_images_by_path_lie_beside(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("img/a.jpg", "img/b.jpg"))
    rows = [
        {"image": {"bytes": None, "path": path}, "text": path} for path in ("a.jpg", "/home/me/img/b.jpg", "gone.jpg")
    ]
    write_parquet(tmp_path / "a.parquet", rows, schema=pa.schema([("image", IMAGE), ("text", pa.string())]))
    first, second, gone = read_all(Parquet(tmp_path))
    assert isinstance(first, Picture)
    assert isinstance(second, Picture)
    assert (first.image, second.image) == (encoded(picture(0)), encoded(picture(1)))
    assert isinstance(gone, BadPicture)


@pytest.mark.parametrize(("first", "group_size"), [(0, 1000), (126, 1000), (126, 200)])
def test_rows_of_one_picture_are_one_picture(tmp_path: Path, first: int, group_size: int) -> None:
    """Five rows each, also where a chunk ends within them; `first` pictures with one row each go before."""
    singles = [{"image": encoded(picture(1000 + n)), "caption": f"single {n}"} for n in range(first)]
    rows = [{"image": encoded(picture(n // 5)), "caption": f"c{n}"} for n in range(150)]
    write_parquet(tmp_path / "a.parquet", singles + rows, schema=None, row_group_size=group_size)
    source = Parquet(tmp_path)
    chunks = list(source.chunks())
    expected = [() for _ in singles] + [tuple(f"c{5 * n + i}" for i in range(5)) for n in range(30)]
    for order in (range(len(chunks)), reversed(range(len(chunks)))):
        read_so = {number: [item.captions for item in source.pictures(chunks[number])] for number in order}
        found = [captions for number in range(len(chunks)) for captions in read_so[number]]
        if group_size == 1000:
            assert found == expected
        else:  # rows of one picture in two row groups stay two
            assert len(found) <= len(expected) + 1
    names = [item.name for item in read_all(source)]
    assert names[first + 1] == f"a.parquet row {first + 5}"


def test_lists_of_captions_are_alternatives_and_tags_are_not(tmp_path: Path) -> None:
    row = {"image": encoded(picture(0)), "captions": ["a cat", "a black cat"], "tags": ["x", "y"]}
    records = {"image": encoded(picture(1)), "captions": ["only one"], "tags": []}
    write_parquet(tmp_path / "a.parquet", [row, records], schema=None)
    first, second = pictures_of(Parquet(tmp_path)).values()
    assert first.captions == ("a cat", "a black cat")
    assert (first.columns["captions"], first.columns["tags"]) == ("a cat", "x, y")
    assert (second.captions, second.columns["captions"]) == ((), "only one")


@pytest.mark.parametrize("layout", ["data/{}-00000-of-00001.parquet", "default/{}/0000.parquet"])
def test_named_splits_of_files(tmp_path: Path, layout: str) -> None:
    for number, split in enumerate(("train", "validation", "test")):
        write_parquet(tmp_path / layout.format(split), wikiart_rows(2, first=2 * number))
    source = Parquet(tmp_path)
    assert sorted(item.split or "" for item in pictures_of(source).values()) == ["train", "train", "val", "val"]
    assert (source.count, source.left_out()) == (4, {TEST_SPLIT: 2})
    assert source.describe()["splits"] != Parquet(wikiart_folder(tmp_path / "one")).describe().get("splits")


@pytest.mark.parametrize("column", ["split", "Subset"])
def test_a_split_column_divides_the_rows(tmp_path: Path, column: str) -> None:
    rows = [{"image": encoded(picture(n)), column: s} for n, s in enumerate(("train", "restval", "val", "test"))]
    write_parquet(tmp_path / "TEST" / "0000.parquet", rows, schema=None)
    *kept, left = read_all(Parquet(tmp_path))
    assert [item.split for item in kept] == ["train", "train", "val"]
    assert left == LeftOut("0000.parquet row 3", TEST_SPLIT)
    write_parquet(tmp_path / "TEST" / "0000.parquet", [*rows[:2], rows[3]], schema=None)
    assert [item.split for item in read_all(Parquet(tmp_path))[:2]] == [None, None]


def test_a_split_column_of_class_numbers_divides_the_rows(tmp_path: Path) -> None:
    features = {"split": {"names": ["train", "test"], "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", pa.binary()), ("split", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = [{"image": encoded(picture(number)), "split": number} for number in range(2)]
    write_parquet(tmp_path / "a.parquet", rows, schema=schema)
    source = Parquet(tmp_path)
    assert read_all(source)[1] == LeftOut("a.parquet row 1", TEST_SPLIT)
    assert source.describe()["split_labels"]  # shards of before hold its test pictures


def test_a_test_row_of_a_file_named_train_is_left_out(tmp_path: Path) -> None:
    rows = [{"image": encoded(picture(n)), "split": split} for n, split in enumerate(("train", "test", "val"))]
    write_parquet(tmp_path / "train-0.parquet", rows, schema=None)
    write_parquet(tmp_path / "validation-0.parquet", [rows[2] | {"image": encoded(picture(3))}], schema=None)
    read = read_all(Parquet(tmp_path))
    assert read[1] == LeftOut("train-0.parquet row 1", TEST_SPLIT)
    assert [item.split for item in read if isinstance(item, Picture)] == ["train", "train", "val"]


@pytest.mark.parametrize(
    ("column", "kind", "value", "caption"),
    [
        ("caption", pa.binary(), "é".encode("cp1252"), "é"),
        ("caption", pa.struct([("en", pa.string()), ("de", pa.string())]), {"en": "a", "de": "b"}, "a"),
        ("caption", pa.map_(pa.string(), pa.string()), [("de", "b"), ("en", "a")], "a"),
        ("alttext", pa.string(), "a", "a"),
        ("tags", pa.list_(pa.dictionary(pa.int32(), pa.string())), ["a", "b"], "a, b"),
    ],
)
def test_captions_of_other_types(tmp_path: Path, column: str, kind: pa.DataType, value: Any, caption: str) -> None:
    schema = pa.schema([(column, kind), ("embedding", pa.binary()), ("photo_bytes", pa.binary())])
    row = {column: value, "embedding": b"xx", "photo_bytes": encoded(picture(0))}
    write_parquet(tmp_path / "a.parquet", [row], schema=schema)
    (found,) = pictures_of(Parquet(tmp_path)).values()
    assert found.image == row["photo_bytes"]
    assert found.columns[column] == caption


def test_a_description_of_before_is_still_the_same(tmp_path: Path) -> None:
    """What an older version wrote of the same files: finished shards are found again."""
    source = Parquet(wikiart_folder(tmp_path / "WikiArt", count=2))
    assert source.describe().keys() == {"kind", "files", "image_column"}


@pytest.mark.parametrize("captions", [False, True])
def test_chunks_far_apart_are_read_as_they_are(tmp_path: Path, captions: bool) -> None:
    """As a process reads them whose neighbours take the chunks between."""
    column = "caption" if captions else "title"
    rows = [{"image": b"%d" % number, column: str(number)} for number in range(10 * ROWS_PER_CHUNK)]
    write_parquet(tmp_path / "a.parquet", rows, schema=None)
    source = Parquet(tmp_path)
    chunks = list(source.chunks())
    for number in (0, 3, 4, 8, 9, 2, 6):
        found = [item.columns[column] for item in source.pictures(chunks[number])]
        assert found == [str(row) for row in range(chunks[number].start, chunks[number].stop)]


# ------------------------------------------------------------------ lists of pictures, and base64


@pytest.mark.parametrize("records", [True, False])
def test_of_a_list_of_pictures_the_first_is_taken(tmp_path: Path, *, records: bool) -> None:
    def cell(number: int) -> Any:
        return {"bytes": encoded(picture(number)), "path": None} if records else encoded(picture(number))

    lists = [[cell(0), cell(1)], [cell(2)], [], None, [None, cell(3)]]
    rows = [{"images": images, "caption": f"c{number}"} for number, images in enumerate(lists)]
    write_parquet(tmp_path / "a.parquet", rows, schema=None)
    source = open_source(tmp_path)
    found = pictures_of(source)
    assert [item.image for item in found.values()] == [encoded(picture(number)) for number in (0, 2, 3)]
    assert list(captions_of(source).values()) == ["c0", "c1", "c4"]
    assert notes_of(source) == {MORE.format("images"): 1}
    assert sum(isinstance(item, LeftOut) and item.reason == "rows without a picture" for item in read_all(source)) == 2


def test_one_picture_goes_before_a_list_of_them(tmp_path: Path) -> None:
    rows = [{"images": [encoded(picture(1))], "cover": encoded(picture(0)), "text": "c"}]
    source = Parquet(write_parquet(tmp_path / "a.parquet", rows, schema=None))
    assert [item.image for item in pictures_of(source).values()] == [encoded(picture(0))]
    assert source.left_out() == {"pictures of column `images` (source.image_column=images takes them)": 1}


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,"])
def test_pictures_in_base64(tmp_path: Path, prefix: str) -> None:
    texts = [prefix + base64.b64encode(encoded(picture(number))).decode() for number in range(3)]
    rows = [{"text": f"c{number}", "image_base64": text} for number, text in enumerate([*texts, "no picture"])]
    write_parquet(tmp_path / "a.parquet", rows, schema=None)
    source = open_source(tmp_path)
    assert list(captions_of(source).values()) == ["c0", "c1", "c2"]
    assert [item.image for item in pictures_of(source).values()] == [encoded(picture(number)) for number in range(3)]
    assert isinstance(read_all(source)[-1], BadPicture)


def test_small_pictures_in_the_table_of_a_folder_do_not_stand_for_its_pictures(tmp_path: Path) -> None:
    thumbnail = base64.b64encode(encoded(picture(0))).decode()
    write_files(tmp_path, jpegs("a.jpg"))
    rows = [{"file_name": "a.jpg", "thumbnail": thumbnail, "text": "a cat"}]
    write_parquet(tmp_path / "metadata.parquet", rows, schema=None)
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "a cat"}


@pytest.mark.parametrize(
    ("name", "line", "way"),
    [
        ("a.tsv", "1\t{}\ta cat\n", "read_csv('a.tsv', sep='\\\\t')"),
        ("a.jsonl", '{{"image": "{}", "text": "a cat"}}\n', "read_json('a.jsonl', lines=True)"),
        ("a.csv", "image,text\ndata:image/png;base64,{},cat\n", "read_csv('a.csv', sep=',')"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_base64_in_a_table_of_text_is_refused_with_what_helps(
    tmp_path: Path, name: str, line: str, way: str, *, whole: bool
) -> None:
    text = base64.b64encode(encoded(picture(0))).decode()
    write_files(tmp_path, {name: line.format(text)})
    with pytest.raises(UserError, match="base64") as error:
        open_source(tmp_path if whole else tmp_path / name)
    assert way.replace("\\\\", "\\") in str(error.value)


@pytest.mark.parametrize(
    ("row", "caption"),
    [
        ({"metadata": {"caption": "a house", "score": 3}}, "a house"),
        ({"painting": {"artist": "Monet", "title": "Lilies"}}, "Monet / Lilies"),
        (
            {"annotations": [{"caption": "a house", "id": 1}, {"caption": "a red house", "id": 2}]},
            ("a house", "a red house"),
        ),
        ({"annotations": {"caption": ["a house", "a red house"], "id": [1, 2]}}, ("a house", "a red house")),
        ({"title": "Lilies", "license": {"text": "CC BY"}}, "Lilies"),
        ({"a": {"caption": "one"}, "b": {"caption": "two"}}, ""),  # which of them, nobody knows
    ],
)
def test_captions_in_records(tmp_path: Path, row: dict[str, Any], caption: Any) -> None:
    """`Sequence` of the datasets library is a record of lists, or a list of records."""
    write_parquet(tmp_path / "a.parquet", [{"image": {"bytes": encoded(picture(0))}, **row}], schema=None)
    assert list(captions_of(Parquet(tmp_path)).values()) == [caption]


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        (("source", "target"), "target"),
        (("input_image", "edited_image"), "edited_image"),
        (("conditioning_image", "image"), "image"),
        (("source_image",), "source_image"),
    ],
)
def test_the_picture_that_was_made_is_taken(tmp_path: Path, columns: tuple[str, ...], chosen: str) -> None:
    """ControlNet's and InstructPix2Pix's pairs."""
    data = {name: encoded(picture(number)) for number, name in enumerate(columns)}
    row = {**{name: {"bytes": image, "path": None} for name, image in data.items()}, "prompt": "a circle"}
    write_parquet(tmp_path / "a.parquet", [row], schema=None)
    (item,) = pictures_of(Parquet(tmp_path)).values()
    assert item.image == data[chosen]
