"""What a build keeps and counts of captions and splits: nothing is lost in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_art.errors import UserError
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.build.encode import key_of
from diffusion_art.shards.build.tally import told
from diffusion_art.shards.lint.lint import lint
from diffusion_art.shards.manifest import Manifest
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sources.base import LeftOut, Note, Picture
from diffusion_art.sources.detect import open_source
from tests.fakes_sources import Swatches, Told, encoded, jpegs, picture, write_files
from tests.shards.toy import is_whole

SMALL = {"image_size_px": 16, "val_fraction": 0.2, "progress": False, "workers": 1}


def captions(folder: Path) -> dict[int, tuple[str, ...]]:
    """The captions of each swatch."""
    shards = ShardSet.open(folder)
    numbers = {key_of(b"swatch/%d" % number): number for number in range(2000)}
    places = [(split, i) for split, count in shards.splits.items() for i in range(count)]
    return {numbers[shards.key(split, i)]: shards.captions(split, i) for split, i in places}


def test_several_captions_are_kept_and_the_first_is_the_text_beside(tmp_path: Path) -> None:
    texts = ("Étude", " a  castle ", "Étude", "None")  # cleaned, each once
    source = Told(40, lambda number: {"captions": texts} if number % 2 else {})
    manifest = build_shards(source, tmp_path / "out", caption_template="{title}, {caption}", **SMALL)
    shards = ShardSet.open(tmp_path / "out")
    assert is_whole(shards)
    assert captions(tmp_path / "out") == {
        number: (f"Swatch {number}, Étude", f"Swatch {number}, a castle") if number % 2 else (f"Swatch {number}",)
        for number in range(40)
    }
    assert sum(map(shards.several, shards.splits)) == manifest.extra["counts"]["several_captions"] == 20
    assert shards.stored_caption("train", 1).decode() == shards.captions("train", 1)[0]
    assert lint(str(tmp_path / "out")).plain()["findings"] == {}


def test_another_template_makes_others_of_what_is_stored(tmp_path: Path) -> None:
    source = Told(20, lambda number: {"captions": ("red", "blue")})
    build_shards(source, tmp_path / "out", caption_template="{title}", **SMALL)
    assert captions(tmp_path / "out")[3] == ("Swatch 3",)
    for template, expected in {
        "{caption}": ("red", "blue"),
        "{title} in {caption}": ("Swatch 3 in red", "Swatch 3 in blue"),
        "{title} {width} px": ("Swatch 3 16 px",),
        "": ("",),
    }.items():
        shards = ShardSet.open(tmp_path / "out", caption_template=template)
        places = [("train", i) for i in range(shards.splits["train"])] + [
            ("val", i) for i in range(shards.splits["val"])
        ]
        place = next(place for place in places if shards.key(*place) == key_of(b"swatch/3"))
        assert shards.captions(*place) == expected, template
        assert shards.caption_template == template
        assert shards.without_caption() == (0 if template else 20)
    with pytest.raises(
        UserError, match=r"out: caption_template asks for \{artist\}.*Their columns: caption, height, title"
    ):
        ShardSet.open(tmp_path / "out", caption_template="{artist}")


def test_the_captions_of_equal_pictures_come_together(tmp_path: Path) -> None:
    """Five rows with the same picture, a caption each, as in LAION's COCO or Flickr30k."""

    class Rows(Told):
        def pictures(self, chunk: range):
            for number in chunk:
                image = picture(number % 6, width=16, height=16)
                columns = {"caption": f"caption {number // 6}" if number % 6 else ""}
                yield Picture(image, columns, identity=b"swatch/%d" % (number % 6), name=str(number))

    manifest = build_shards(Rows(30, dict), tmp_path / "out", **SMALL)
    expected = tuple(f"caption {number}" for number in range(5))
    assert captions(tmp_path / "out") == {number: expected if number else ("",) for number in range(6)}
    counts = manifest.extra["counts"]
    assert (counts["duplicates"], counts["several_captions"], counts["without_caption"]) == (24, 5, 1)
    assert lint(str(tmp_path / "out")).findings.errors == 0


def test_no_caption_at_all_stops_the_build_and_names_the_columns(tmp_path: Path) -> None:
    for columns, way in (
        ({"extra": "a red house"}, r"caption_template='\{extra\}'"),
        ({"file_name": "x.jpg"}, "NAME.txt beside"),
        ({"__url__": "hf://x/0.tar"}, "a column `caption`"),
    ):
        source = Told(6, lambda number: {})
        source.pictures = _with_columns(source, columns)  # type: ignore[method-assign]
        with pytest.raises(
            UserError,
            match=rf"none of 6 pictures has a caption; their columns: {next(iter(columns))}\. "
            rf"Left out: 2 files with the suffix \.heic\. .*{way}",
        ):
            build_shards(source, tmp_path / "out", **SMALL)
        assert not (tmp_path / "out").exists()
    manifest = build_shards(source, tmp_path / "out", allow_no_captions=True, **SMALL)
    assert manifest.extra["counts"]["without_caption"] == 6
    assert ShardSet.open(tmp_path / "out").without_caption() == 6
    build_shards(source, tmp_path / "none", caption_template="", **SMALL)


def test_a_column_of_addresses_is_not_proposed_for_captions(tmp_path: Path) -> None:
    row = "https://example.com/photos/a-long-address,a lake"
    write_files(tmp_path / "in", {**jpegs("a.jpg"), "m.csv": f"file,photo_address,seen\na.jpg,{row}\n"})
    with pytest.raises(UserError, match=r"caption_template='\{seen\}'"):
        build_shards(open_source(tmp_path / "in"), tmp_path / "out", image_size_px=16, progress=False)


def _with_columns(source: Swatches, columns: dict[str, str]):
    def pictures(chunk: range):
        for number in chunk:
            image = picture(number, width=16, height=16)
            yield Picture(image, columns, identity=b"swatch/%d" % number, name=str(number))

    return pictures


def test_captions_that_are_names_of_folders_are_counted_with_what_else_there_is(tmp_path: Path) -> None:
    rows = "file_name,additional_feature\na.jpg,red\nb.jpg,blue\n"
    files = jpegs("in/op-art/a.jpg", "in/op-art/b.jpg", "in/op-art/c.jpg") | {"in/op-art/c.txt": "c", "in/x.csv": rows}
    source = open_source(write_files(tmp_path, files) / "in")
    manifest = build_shards(source, tmp_path / "out", **SMALL | {"val_fraction": 0.0})
    assert told(manifest) == [
        "2 pictures have their folder's name as caption; other columns, for a caption_template: additional_feature"
    ]


def test_a_large_collection_without_captions_stops_early(tmp_path: Path) -> None:
    source = Told(2000, lambda number: {})
    seen: list[int] = []
    source.pictures = _with_columns(source, {"blurb": "b"})  # type: ignore[method-assign]
    inner = source.pictures

    def counted(chunk: range):
        seen.extend(chunk)
        return inner(chunk)

    source.pictures = counted  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"none of the first 1,000 pictures has a caption; their columns: blurb\."):
        build_shards(source, tmp_path / "out", **SMALL)
    assert len(seen) == 1000 + 8  # of the first of which the files are looked into


def test_what_is_left_out_is_counted_by_reason_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def item(number: int):
        if number < 3:
            return [LeftOut(str(number), "pictures of the test split")]
        if number < 5:
            return [Note(str(number), "texts read as Windows-1252"), *_swatch(number)]
        return {}

    manifest = build_shards(Told(30, item), tmp_path / "out", max_bad=0, **{**SMALL, "progress": True})
    counts = manifest.extra["counts"]
    assert counts["left_out"] == {"pictures of the test split": 3, "files with the suffix .heic": 2}
    assert counts["notes"] == {"texts read as Windows-1252": 2}
    assert counts["bad"] == 0
    assert sum(manifest.splits.values()) == 27
    told, bar = capsys.readouterr()
    assert " 30/30 " in bar  # a note is no picture
    for line in (
        "3 pictures of the test split, left out",
        "2 files with the suffix .heic, left out",
        "2 texts read as",
    ):
        assert line in told


def _swatch(number: int):
    image = picture(number, width=16, height=16)
    yield Picture(image, {"title": "x"}, identity=b"swatch/%d" % number, name=str(number))


def splits(folder: Path) -> dict[str, set[int]]:
    shards = ShardSet.open(folder)
    numbers = {key_of(b"swatch/%d" % number): number for number in range(100)}
    return {split: {numbers[shards.key(split, i)] for i in range(count)} for split, count in shards.splits.items()}


@pytest.mark.parametrize("first", ["train", "val"])
def test_a_named_validation_split_is_the_one(tmp_path: Path, first: str, capsys: pytest.CaptureFixture[str]) -> None:
    def item(number: int) -> dict:
        other = {"train": "val", "val": "train"}[first]
        split = first if number < 20 else other
        return {"split": split, "identity": b"swatch/%d" % (number if number != 39 else 0)}  # one is in both

    manifest = build_shards(Told(40, item), tmp_path / "out", **{**SMALL, "progress": True})
    low, high = set(range(1, 20)), set(range(20, 39))
    train, val = (low, high) if first == "train" else (high, low)
    assert splits(tmp_path / "out") == {"train": train, "val": val | {0}}
    assert manifest.extra["splits"] == "named"
    told = capsys.readouterr().out
    assert "the validation split is the one that the source names; val_fraction is not used" in told
    assert "1 picture that the source names in both splits is in val only" in told
    assert lint(str(tmp_path / "out")).findings.errors == 0


def test_pictures_named_for_training_only_are_split_by_hash(tmp_path: Path) -> None:
    build_shards(Told(40, lambda number: {"split": "train"}), tmp_path / "named", **SMALL)
    build_shards(Told(40, lambda number: {}), tmp_path / "plain", **SMALL)
    assert splits(tmp_path / "named") == splits(tmp_path / "plain")
    assert Manifest.load(tmp_path / "named").digest == Manifest.load(tmp_path / "plain").digest
    assert "splits" not in Manifest.load(tmp_path / "named").extra


def test_the_cap_on_pixels_is_a_setting(tmp_path: Path) -> None:
    large = encoded(picture(0, width=1500, height=1000), "PNG")
    source = Told(3, lambda number: {"image": large} if number == 0 else {})
    kept = build_shards(source, tmp_path / "kept", **SMALL)
    capped = build_shards(source, tmp_path / "capped", max_megapixels=1, **SMALL)
    assert (sum(kept.splits.values()), sum(capped.splits.values())) == (3, 2)
    assert capped.extra["counts"]["bad_by_reason"] == {"N x N pixels, over the cap of N megapixels": 1}
    assert (capped.extra["settings"]["max_megapixels"], kept.extra["settings"].get("max_megapixels")) == (1, None)


def test_names_that_are_words_may_be_the_captions(tmp_path: Path) -> None:
    """As kohya's and Midjourney's users keep them."""
    names = (
        "a red house on a hill.jpg",
        "x/a_blue_boat (2).jpg",
        "y/ann_a_castle_0a1b2c3d-1111-2222-3333-444455556666.jpg",
    )
    source = open_source(write_files(tmp_path / "in", jpegs(*names)))
    with pytest.raises(UserError, match=r"The names of the files are words: use caption_template='\{stem\}'"):
        build_shards(source, tmp_path / "out", **SMALL)
    build_shards(source, tmp_path / "out", caption_template="{stem}", **SMALL | {"val_fraction": 0.0})
    shards = ShardSet.open(tmp_path / "out")
    captions = {shards.captions("train", i) for i in range(3)}
    assert captions == {("a red house on a hill",), ("a blue boat",), ("ann a castle",)}


def test_names_of_cameras_are_not(tmp_path: Path) -> None:
    source = open_source(write_files(tmp_path / "in", jpegs("IMG_1234.jpg", "DSC00017.jpg", "a1.jpg")))
    with pytest.raises(UserError, match=r"Put a NAME\.txt"):
        build_shards(source, tmp_path / "out", **SMALL)
