"""`sources/splits.py`: what names say of splits, and when that divides a collection."""

from __future__ import annotations

import pytest

from diffusion_art.sources.splits import FolderSplits, divide, split_of_file, split_of_folder


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00004.parquet", "train"),
        ("test-00000-of-1.parquet", "test"),
        ("validation-000.tar", "val"),
        ("semart_val.csv", "val"),
        ("captions_train2017.json", "train"),
        ("train_test.csv", None),
        ("contest.csv", None),
        ("00000.tar", None),
    ],
)
def test_files(name: str, split: str | None) -> None:
    assert split_of_file(name) == split


@pytest.mark.parametrize(
    ("name", "split"),
    [("train2017", "train"), ("test_set", "test"), ("Validation-Images", "val"), ("dev", "val"), ("test drive", None)],
)
def test_folders(name: str, split: str | None) -> None:
    assert split_of_folder(name) == split


def test_a_train_beside_cars_is_a_vehicle() -> None:
    splits = FolderSplits(["train/a.jpg", "car/b.jpg"])
    assert splits.of("train/a.jpg") is None
    assert not splits.names("train")
    assert FolderSplits(["train/a.jpg", "unlabeled/b.jpg", "test/c.jpg"]).of("train/a.jpg") == "train"


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
