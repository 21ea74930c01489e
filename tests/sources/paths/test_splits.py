"""`sources/paths/splits.py`: what names say of splits, and when that divides a collection."""

from __future__ import annotations

import pytest

from diffusion_art.sources.paths.splits import (
    FolderSplits,
    agreed,
    column_of_splits,
    divide,
    numbered_splits,
    split_in_row,
    split_of_file,
    split_of_folder,
    splits_of_prefixes,
)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00004.parquet", "train"),
        ("test-00000-of-1.parquet", "test"),
        ("validation-000.tar", "val"),
        ("semart_val.csv", "val"),
        ("captions_train2017.json", "train"),
        ("train_test.csv", None),
        ("Flickr_8k.testImages.txt", "test"),
        ("trainval.txt", "train"),
        ("contest.csv", None),
        ("00000.tar", None),
    ],
)
def test_files(name: str, split: str | None) -> None:
    assert split_of_file(name) == split


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("train2017", "train"), ("test_set", "test"), ("Validation-Images", "val"), ("dev", "val")),
        *(("testset", "test"), ("TrainImages", "train"), ("holdout", "test")),
        *(("test drive", None), ("dataset", None), ("contest", None)),
    ],
)
def test_folders(name: str, split: str | None) -> None:
    assert split_of_folder(name) == split


def test_a_train_beside_cars_is_a_vehicle() -> None:
    splits = FolderSplits(["train/a.jpg", "car/b.jpg"])
    assert splits.of("train/a.jpg") is None
    assert not splits.names("train")
    assert FolderSplits(["train/a.jpg", "unlabeled/b.jpg", "test/c.jpg"]).of("train/a.jpg") == "train"


@pytest.mark.parametrize(
    ("train", "test"), [("trainA", "testA"), ("train_v2", "test_v2"), ("artbench_train", "artbench_test")]
)
def test_names_that_differ_in_that_word_alone(train: str, test: str) -> None:
    splits = FolderSplits([f"x/{train}/a.jpg", f"x/{test}/b.jpg", "x/test drive/c.jpg"])
    assert [splits.of(f"x/{name}/a.jpg") for name in (train, test, "test drive")] == ["train", "test", None]
    assert FolderSplits([f"{train}/a.jpg", "cats/b.jpg"]).of(f"{train}/a.jpg") is None


def test_prefixes_of_all_pictures() -> None:
    assert splits_of_prefixes(["x/train_1.jpg", "Test-2.jpg"]) == {"x/train_1.jpg": "train", "Test-2.jpg": "test"}
    assert splits_of_prefixes(["train_1.jpg", "test.jpg"]) == {}


def test_a_row_is_surer_than_a_folder_but_for_test_pictures() -> None:
    assert agreed(row="train", folder="val", table="test") == "train"
    assert agreed(row="train", folder="test", table=None) == "test"
    assert agreed(row=None, folder=None, table="val") == "val"


@pytest.mark.parametrize("name", ["split", "Subset", "data_split", "Partition"])
def test_columns_of_splits(name: str) -> None:
    assert split_in_row({"caption": "a test", name: "Testing"}) == "test"
    assert split_in_row({name: "a set of cats"}) is None


def test_a_column_of_another_name_whose_cells_are_all_splits() -> None:
    cells = [("Training", "a"), ("val", "test"), ("test", "b")]
    rows = [{"phase": phase, "text": text} for phase, text in cells]
    assert column_of_splits(rows) == "phase"
    assert column_of_splits([row | {"split": ""} for row in rows]) is None
    assert column_of_splits([*rows, {"phase": "art", "text": "c"}]) is None
    assert column_of_splits(rows[:1]) is None
    assert column_of_splits([]) is None


def test_a_test_folder_wins_within_another() -> None:
    assert (
        FolderSplits(["bottle/train/good/a.jpg", "bottle/test/broken/b.jpg"]).of("bottle/test/broken/b.jpg") == "test"
    )


@pytest.mark.parametrize(
    ("named", "divided"),
    [
        (["train", "train"], [None, None]),
        (["test", "test"], [None, None]),
        (["val", "test"], [None, None]),
        ([None, "test"], [None, "test"]),
        (["train", "test"], [None, "test"]),
        (["train", None, "val"], ["train", "train", "val"]),
    ],
)
def test_names_divide_only_what_has_a_part_to_train_on(named: list[str | None], divided: list[str | None]) -> None:
    assert list(divide({str(i): split for i, split in enumerate(named)}).values()) == divided


@pytest.mark.parametrize(
    ("rows", "splits"),
    [
        ([{"partition": n} for n in ("0", "1", "2")], ["train", "val", "test"]),
        ([{"split": n} for n in (0.0, 2.0, None)], ["train", "test", None]),
        ([{"is_train": n} for n in (1, 0, "")], ["train", "test", None]),
        ([{"Is_Test": n} for n in (True, False)], ["test", "train"]),
        ([{"is_training_image": t, "is_val": v} for t, v in ((1, 0), (0, 1), (0, 0))], ["train", "val", "test"]),
        ([{"partition": n} for n in (0, 1)], [None, None]),
        ([{"partition": n, "is_train": 0} for n in ("train", "test")], [None, None]),
        ([{"is_train": n} for n in (0, 3)], [None, None]),
        ([{"is_valid": n} for n in (0, 1)], [None, None]),
        ([], []),
    ],
)
def test_numbers_of_splits(rows: list[dict], splits: list[str | None]) -> None:
    numbers = numbered_splits(rows)
    assert [numbers.of(row) for row in rows] == splits
    assert bool(numbers.note) == (any(splits) or rows == [{"partition": 0}, {"partition": 1}])
