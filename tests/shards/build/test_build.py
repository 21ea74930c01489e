"""`shards/build/build.py`: the same bytes whatever happens on the way, and nothing half-written taken for whole."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_art.errors import UserError
from diffusion_art.shards.build.build import build_shards, unfinished
from diffusion_art.shards.build.encode import key_of, split_of
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sources.folder.folder import ImageFolder
from diffusion_art.sources.parquet.parquet import Parquet
from diffusion_art.sources.tars.tars import Tars
from tests.fakes_sources import Swatches, captioned, encoded, picture, wikiart_folder, wikiart_rows, write_parquet
from tests.shards.toy import is_whole
from tests.sources.tars.test_tars import write_tar

SMALL = {"image_size_px": 16, "val_fraction": 0.2, "progress": False}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def samples(folder: Path) -> list[tuple[str, str]]:
    """(split, key) of every sample, in order."""
    shards = ShardSet.open(folder)
    return [(split, shards.key(split, i)) for split, count in shards.splits.items() for i in range(count)]


def test_a_build_holds_what_the_source_has(tmp_path: Path) -> None:
    build_shards(Parquet(wikiart_folder(tmp_path / "wikiart", count=20)), tmp_path / "out", **SMALL)
    shards = ShardSet.open(tmp_path / "out")
    assert is_whole(shards)
    assert shards.name == "wikiart"
    assert sum(shards.splits.values()) == 40
    rows = {key_of(row["image"]["bytes"]): row for row in wikiart_rows(40)}
    for split, count in shards.splits.items():
        for i in range(count):
            sample, metadata = shards.read(split, i), shards.metadata(split, i)
            row = rows.pop(sample.key)
            date = {"None": "", "1968.0": " / 1968", "c.1502": " / c.1502"}[row["date"]]
            title = row["title"].replace("  ", " ")
            assert sample.caption == f"{row['artist']} / {title} / Impressionism / landscape{date}"
            assert metadata["description"] == row["description"]  # the original, rough edges and all
            assert (metadata["width"], metadata["height"]) == (24, 20)
            image = np.asarray(Image.open(io.BytesIO(sample.image)))
            whole = Image.open(io.BytesIO(row["image"]["bytes"])).crop((2, 0, 22, 20)).resize((16, 16))
            assert np.abs(image.astype(int) - np.asarray(whole)).mean() < 6
            assert split == split_of(sample.key, val_fraction=0.2)
    assert rows == {}


def test_the_tars_are_what_tarfile_would_write(tmp_path: Path) -> None:
    build_shards(Swatches(20), tmp_path / "out", **SMALL)
    for file in (tmp_path / "out").glob("*.tar"):
        data = file.read_bytes()
        with tarfile.open(file) as tar:
            for member in tar:
                plain = tarfile.TarInfo(member.name)
                plain.size, plain.mode = member.size, 0o644
                assert data[member.offset : member.offset_data] == plain.tobuf(tarfile.USTAR_FORMAT)


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    source = Swatches(100)
    for workers in (1, 3):
        build_shards(source, tmp_path / str(workers), workers=workers, **SMALL)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_keys_and_splits_depend_on_the_picture_alone(tmp_path: Path) -> None:
    """The same files from parquet, a folder and a tar, in different orders."""
    files = [encoded(picture(number)) for number in range(30)]
    write_parquet(tmp_path / "a.parquet", wikiart_rows(30))
    (tmp_path / "pictures").mkdir()
    for number, data in enumerate(files):
        (tmp_path / "pictures" / f"{99 - number}.jpg").write_bytes(data)
    write_tar(tmp_path / "a.tar", [(f"{number}.jpg", data) for number, data in enumerate(files[::-1])])
    sources = (Parquet(tmp_path / "a.parquet"), ImageFolder(tmp_path / "pictures"), Tars(tmp_path / "a.tar"))
    found = []
    for number, source in enumerate(sources):
        build_shards(source, tmp_path / str(number), workers=1, allow_no_captions=True, **SMALL)
        found.append(sorted(samples(tmp_path / str(number))))
    assert found[0] == found[1] == found[2]
    assert {key for _, key in found[0]} == {key_of(data) for data in files}


def test_the_validation_split_is_a_fair_share_and_only_grows() -> None:
    keys = [key_of(str(number).encode()) for number in range(4000)]
    small = {key for key in keys if split_of(key, val_fraction=0.05) == "val"}
    large = {key for key in keys if split_of(key, val_fraction=0.1) == "val"}
    assert small < large
    assert 140 < len(small) < 260
    assert all(split_of(key, val_fraction=0.0) == "train" for key in keys)


def test_duplicates_are_kept_once_and_counted(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", wikiart_rows(10) + wikiart_rows(12))
    manifest = build_shards(Parquet(tmp_path / "a.parquet"), tmp_path / "out", **SMALL)
    assert sum(manifest.splits.values()) == 12
    assert manifest.extra["counts"]["duplicates"] == 10


def test_limit_keeps_the_first_good_ones(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", wikiart_rows(5) + wikiart_rows(40))
    build_shards(Parquet(tmp_path / "a.parquet"), tmp_path / "out", limit=12, **SMALL)
    keys = {key for _, key in samples(tmp_path / "out")}
    assert keys == {key_of(encoded(picture(number))) for number in range(12)}


@pytest.fixture
def partly_bad(tmp_path: Path) -> ImageFolder:
    """Ten pictures, of which three are none."""
    (tmp_path / "pictures").mkdir()
    for number in range(10):
        data = b"broken" if number in (2, 5, 6) else encoded(picture(number))
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(data)
    return ImageFolder(tmp_path / "pictures")


def test_bad_pictures_are_skipped_counted_and_named(tmp_path: Path, partly_bad: ImageFolder, capsys) -> None:
    settings = {"image_size_px": 16, "val_fraction": 0.0, "allow_no_captions": True}
    manifest = build_shards(partly_bad, tmp_path / "out", max_bad=3, **settings)
    assert manifest.splits == {"train": 7}
    reason = "not a picture in a known format (JPEG, PNG, WEBP, GIF, TIFF, BMP, AVIF, PPM)"
    assert manifest.extra["counts"] == {
        "bad": 3,
        "bad_by_reason": {reason: 3},
        "duplicates": 0,
        "in_both_splits": 0,
        "left_out": {},
        "notes": {},
        "several_captions": 0,
        "without_caption": 7,
    }
    lines = (tmp_path / "out" / "bad_pictures.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["2.jpg", "5.jpg", "6.jpg"]
    assert "not a picture in a known format" in lines[0]
    told = capsys.readouterr().out
    for part in (
        "7 pictures of 16 px",
        "3 bad pictures skipped",
        f"3 {reason}",
        "7 of 7 pictures have no caption",
        "val_fraction",
    ):
        assert part in told


def test_too_many_bad_pictures_stop_the_build(tmp_path: Path, partly_bad: ImageFolder) -> None:
    with pytest.raises(UserError, match=r"3 bad pictures, and max_bad=2 allows no more \(2\.jpg: not a pict"):
        build_shards(partly_bad, tmp_path / "out", max_bad=2, **SMALL)
    assert list(contents(tmp_path / "out")) == ["bad_pictures.txt"]
    build_shards(partly_bad, tmp_path / "out", max_bad=3, allow_no_captions=True, **SMALL)
    assert sum(ShardSet.open(tmp_path / "out").splits.values()) == 7


def test_a_source_that_breaks_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    members = [(f"{number}.jpg", encoded(picture(number))) for number in range(300)]
    whole = write_tar(tmp_path / "whole.tar", members).read_bytes().rstrip(b"\0")
    (tmp_path / "cut.tar").write_bytes(whole[:-700])
    with pytest.raises(UserError, match=r"cut\.tar is no whole tar"):
        build_shards(Tars(tmp_path / "cut.tar"), tmp_path / "out", workers=2, **SMALL)
    assert not (tmp_path / "out").exists()


def test_what_was_left_out_is_told_where_nothing_is_left(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [wikiart_rows(1)[0] | {"image": None}])
    with pytest.raises(UserError, match=r"no picture to train on \(left out: 1 rows without a picture\)"):
        build_shards(Parquet(tmp_path), tmp_path / "out", **SMALL)


def test_no_good_picture_is_an_error(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("0.jpg", b"broken")])
    with pytest.raises(UserError, match=r"gave no picture to train on \(1 bad: a\.tar 0: not a picture"):
        build_shards(Tars(tmp_path / "a.tar"), tmp_path / "out", **SMALL)
    assert not (tmp_path / "out").exists()


def test_a_finished_build_is_not_touched_and_other_settings_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = build_shards(Swatches(20), out, **SMALL)
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert build_shards(Swatches(20), out, **SMALL) == first
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    with pytest.raises(UserError, match=r"built with fit=crop, and now fit=stretch is asked for.*overwrite"):
        build_shards(Swatches(20), out, fit="stretch", **SMALL)
    again = "python -m diffusion_art.prepare source=any source.path=swatches fit=stretch"
    replace = f"`{again} out={out} overwrite=true`"
    with pytest.raises(UserError, match=rf"`{again} out={out}-[0-9a-f]{{6}}`; or replace it: {replace}"):
        build_shards(Swatches(20), out, fit="stretch", again=again, **SMALL)
    other = Swatches(30)
    with pytest.raises(UserError, match=r"source\.count=20, and now source\.count=30"):
        build_shards(other, out, **SMALL)
    build_shards(other, out, overwrite=True, **SMALL)
    build_shards(other, tmp_path / "fresh", **SMALL)
    assert contents(out) == contents(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"image_size_px": 2}, "image_size_px=2 is out of range. Give a whole number, 4 to 4096"),
        ({"workers": 0}, "workers=0 is out of range. Give a whole number, 1 or more"),
        ({"fit": "cover"}, "fit=cover is not a way"),
        ({"jpeg_quality": 101}, "jpeg_quality=101"),
        ({"val_fraction": 1.0}, "val_fraction=1.0"),
        ({"val_fraction": float("nan")}, "val_fraction=nan"),
        ({"limit": 0}, "limit=0 is out of range. Give a whole number, 1 or more"),
        ({"max_bad": -1}, "max_bad=-1"),
        ({"max_megapixels": 0}, "max_megapixels=0 is out of range"),
        ({"caption_template": "{medium}"}, "medium"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_made(tmp_path: Path, setting, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_shards(Swatches(20), tmp_path / "out", **(SMALL | setting))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["letter.txt", "train-000000.tar"])
def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"dear")
    with pytest.raises(UserError, match=f"holds other files \\({name}\\)"):
        build_shards(Swatches(20), tmp_path, **SMALL)
    with pytest.raises(UserError, match="is a file"):
        build_shards(Swatches(20), tmp_path / name, **SMALL)
    assert contents(tmp_path) == {name: b"dear"}


BUILD = """
import sys
from diffusion_art.shards.build.build import build_shards
from tests.fakes_sources import Swatches
source = Swatches(400)
build_shards(source, sys.argv[1], image_size_px=16, val_fraction=0.2, progress=False, workers=2)
"""


def start_build(out: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", BUILD, str(out)], cwd=Path(__file__).parents[3])


def test_a_killed_build_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    out, spool = tmp_path / "out", tmp_path / "out" / ".building" / "spool"
    for least_bytes in (10_000, 60_000):
        with start_build(out) as process:
            while process.poll() is None and not (spool.exists() and spool.stat().st_size > least_bytes):
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert unfinished(out)
        assert list(contents_of_files(out)) == []
    spooled = spool.stat().st_size
    source = Swatches(400)
    drawn: list[int] = []
    source.pictures = _counting(source.pictures, drawn)  # type: ignore[method-assign]
    build_shards(source, out, workers=1, **SMALL)
    assert spooled > 60_000
    assert 0 < len(drawn) < 50  # of 50 chunks, only those not yet finished
    build_shards(Swatches(400), tmp_path / "whole", workers=1, **SMALL)
    assert contents(out) == contents(tmp_path / "whole")
    assert not unfinished(out)


def test_a_build_killed_while_files_move_into_place_is_redone(tmp_path: Path) -> None:
    source = Swatches(60)
    build_shards(source, tmp_path / "whole", **SMALL)
    out = tmp_path / "out"
    shutil.copytree(tmp_path / "whole", out)
    (out / "manifest.json").unlink()  # it always moves last
    (out / "train-000007.tar").write_bytes(b"of an older and larger build")
    (out / ".building").mkdir()
    assert unfinished(out)
    build_shards(source, out, **SMALL)
    assert contents(out) == contents(tmp_path / "whole")


def test_two_processes_may_build_the_same_folder(tmp_path: Path) -> None:
    with start_build(tmp_path / "out") as one, start_build(tmp_path / "out") as two:
        pass
    assert (one.returncode, two.returncode) == (0, 0)
    assert is_whole(ShardSet.open(tmp_path / "out"))
    assert not (tmp_path / "out" / ".building").exists()


def test_threads_may_build_while_the_caller_has_others(tmp_path: Path) -> None:
    """As in a training process: no fork of a threaded process, no second import of its main module."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        source = Swatches(80)
        manifest = build_shards(source, tmp_path / "out", workers=2, **SMALL)
    finally:
        stop.set()
        thread.join()
    assert sum(manifest.splits.values()) == 80


def test_the_manifest_says_how_it_was_made_and_not_where_or_when(tmp_path: Path) -> None:
    manifest = build_shards(Swatches(20), tmp_path / "out", **SMALL)
    settings = manifest.extra["settings"]
    assert settings["source"] == json.loads(json.dumps(Swatches(20).describe()))
    assert settings["val_fraction"] == 0.2
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()


def test_building_needs_no_torch() -> None:
    check = "import sys, diffusion_art.shards.build.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], env={**os.environ}).returncode == 0


def contents_of_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _counting(pictures, drawn: list[int]):
    def counted(chunk):
        drawn.append(1)
        return pictures(chunk)

    return counted


def test_a_folder_of_files_that_have_changed_since_says_so(tmp_path: Path) -> None:
    pictures, out = captioned(tmp_path / "mine", 3), tmp_path / "out"
    build_shards(ImageFolder(pictures), out, **SMALL)
    (pictures / "0.txt").write_text("another caption")
    with pytest.raises(UserError, match=r"other files than are there now: pictures, texts or tables were .* edited"):
        build_shards(ImageFolder(pictures), out, **SMALL)
