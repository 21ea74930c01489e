"""`sources/parquet.py`: WikiArt's layout and its relatives, and files that are not whole."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from diffusion_art.errors import UserError
from diffusion_art.sources.base import ART_TEMPLATE, BadPicture, Picture, Source
from diffusion_art.sources.parquet import ROWS_PER_CHUNK, Parquet
from tests.fakes_sources import encoded, picture, wikiart_folder, wikiart_rows, write_parquet


def read(source: Parquet) -> list[Picture | BadPicture]:
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
    for number in (3, 0, 2, 1, 4, 0):
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
