"""`sources/paths/listing.py`: one walk, whatever lies there."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from diffusion_art.errors import UserError
from diffusion_art.sources.detect import open_source
from diffusion_art.sources.parquet.parquet import Parquet
from diffusion_art.sources.paths import listing
from diffusion_art.sources.paths.listing import fingerprint, list_files, why_unread
from diffusion_art.sources.tars.tars import Tars
from tests.fakes_sources import jpegs, write_files


def test_hidden_files_and_thumbnails_of_systems_do_not_belong(tmp_path: Path) -> None:
    files = (".hidden/a.jpg", "._b.jpg", "__MACOSX/c.jpg", "@eaDir/d.jpg/SYNOPHOTO_THUMB_M.jpg", "e.jpg", ".jpg", "f")
    found = list_files(write_files(tmp_path, dict.fromkeys(files, "x")))
    assert (found.pictures(), dict(found.left_out)) == (["e.jpg"], {})


def test_a_folder_in_the_collection_keeps_its_own_name(tmp_path: Path) -> None:
    write_files(tmp_path, {"z/deep/a.jpg": "x"})
    (tmp_path / "a").symlink_to(tmp_path / "z")
    (tmp_path / "z" / "deep" / "up").symlink_to(tmp_path / "z")
    found = list_files(tmp_path)
    assert found.pictures() == ["z/deep/a.jpg"]
    assert found.left_out == {"linked folders that were read already": 2}


def test_a_link_to_itself_leads_nowhere(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": "x"})
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "b.jpg").symlink_to("c.jpg")
    (tmp_path / "c.jpg").symlink_to("b.jpg")
    found = list_files(tmp_path)
    assert (found.pictures(), found.left_out) == (["a.jpg"], {"links that lead nowhere": 3})
    assert fingerprint(tmp_path) == fingerprint(tmp_path)


def test_a_link_to_a_folder_above_does_not_bring_in_its_neighbours(tmp_path: Path) -> None:
    write_files(tmp_path, {"mine/a.jpg": "x", "other/b.jpg": "x"})
    (tmp_path / "mine" / "up").symlink_to("..")
    before = fingerprint(tmp_path / "mine")
    found = list_files(tmp_path / "mine")
    assert (found.pictures(), found.left_out) == (["a.jpg"], {"links to folders above the collection": 1})
    write_files(tmp_path, {"other/c.jpg": "x"})
    assert fingerprint(tmp_path / "mine") == before


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    results = []
    thread = threading.Thread(target=lambda: results.append(list_files(tmp_path)), daemon=True)
    thread.start()
    thread.join(20)
    assert results[0].left_out == {"pipes and devices": 1}


def test_the_digest_follows_names_sizes_and_times_and_reads_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"one")
    digests = [list_files(tmp_path).digest()]
    file.write_bytes(b"two")
    os.utime(file, ns=(5, 5))
    digests.append(list_files(tmp_path).digest())
    os.utime(file, ns=(5, 6))
    digests.append(list_files(tmp_path).digest())
    file.rename(tmp_path / "b.jpg")
    digests.append(list_files(tmp_path).digest())
    assert len(set(digests)) == 4
    (tmp_path / "notes.md").write_text("not part of it")
    assert list_files(tmp_path).digest() == digests[-1]


def test_heic_is_named_with_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, dict.fromkeys(("a.heic", "b.HEIC", "c.hif", "d.jpg"), "x"))
    monkeypatch.setattr(listing, "can_read_heic", lambda: False)
    found = list_files(tmp_path)
    assert found.pictures() == ["d.jpg"]
    assert found.left_out == {
        "files .heic: install pillow-heif": 2,
        "files .hif: install pillow-heif": 1,
    }


def test_what_lies_there_instead_of_pictures_is_counted(tmp_path: Path) -> None:
    names = ("a.jpg_large", "b.JPG!Large", "x.tfrecord-00000-of-00001", "c.tar.part", "d.yaml", "data.arrow", "e.py")
    found = list_files(write_files(tmp_path, dict.fromkeys(names, "x"))).left_out
    assert found.total() == 6
    assert found["files .jpg_large: no suffix of pictures; rename them to .jpg"] == 1
    assert (
        found[
            "files .yaml: no captions are read from these; write .txt, or a csv with the columns file_name and caption"
        ]
        == 1
    )
    assert any("datasets.load_from_disk" in reason for reason in found)
    assert why_unread(".jpg") is None


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("c.zarr/zarr.json", "c.zarr/images/c/0/0"), "1 folders .zarr: no reader; write parquet or WebDataset"),
        (("a.lance/data/x.lance", "a.lance/_versions/1.manifest"), "lance.dataset"),
        (("sac.sqlite3",), "1 files .sqlite3: a data base; export its table as csv"),
        (("train.beton",), "files .beton: no reader; write parquet or WebDataset"),
        (("shard.00000.mds", "index.json"), "1 files .mds: no reader"),
        (("x.npz", "y.npz"), "2 files .npz: no reader; write parquet or WebDataset"),
        (("data_batch_1.pkl",), "1 files .pkl: pickles of Python, which may run any program and are not opened"),
        (("images.dvc",), "`dvc pull` in their repository"),
    ],
)
@pytest.mark.parametrize("source", [open_source, Parquet, Tars])
def test_collections_in_formats_that_are_not_read_are_named(
    tmp_path: Path, names: tuple, told: str, source: Any
) -> None:
    write_files(tmp_path, dict.fromkeys(names, "x"))
    with pytest.raises(UserError, match=re.escape(told)):
        source(tmp_path)


def test_windows_thumbnails_are_no_data_base(tmp_path: Path) -> None:
    found = list_files(write_files(tmp_path, {"Thumbs.db": "x", "a.jpg": "x", "b.npz": "x"}))
    assert not found.left_out


def test_what_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be listed"):
        list_files(tmp_path / "nowhere")


def test_only_files_without_any_suffix_are_looked_into(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("a.jpg", "b", "c.1", "blobs/d", "blobs/e.jpg"))
    write_files(tmp_path, {"notes": "a text"})
    assert list_files(tmp_path).pictures() == ["a.jpg", "b", "blobs/e.jpg"]


def test_a_part_of_a_table_is_named_with_what_helps() -> None:
    assert why_unread(".tsv000") == "a table by another suffix; rename it to .tsv"


def test_a_file_without_a_suffix_that_is_no_picture_is_counted_as_what_it_is(tmp_path: Path) -> None:
    video = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"
    write_files(tmp_path, {**jpegs("a.jpg"), "clip": video, "more": b"PK\3\4rest", "table": b"PAR1...", "notes": "BMW"})
    write_files(tmp_path, {"scan": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaf"})
    found = list_files(tmp_path)
    assert found.pictures() == ["a.jpg", "scan"]
    assert found.left_out == {
        "files without a suffix: video": 1,
        "files without a suffix: an archive; unpack it": 1,
        "files without a suffix: parquet without a suffix; rename them to .parquet": 1,
    }


def test_a_fingerprint_follows_linked_folders_and_ends_in_loops(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "b" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "dangling").symlink_to(tmp_path / "nowhere")
    seen = {fingerprint(tmp_path / "a")}
    for change in (
        lambda: (tmp_path / "elsewhere" / "x").write_text("1"),
        lambda: (tmp_path / "elsewhere" / "x").write_text("22"),
        lambda: os.utime(tmp_path / "elsewhere" / "x", (1, 1)),
        lambda: (tmp_path / "elsewhere" / "x").rename(tmp_path / "elsewhere" / "y"),
    ):
        change()
        seen.add(fingerprint(tmp_path / "a"))
    assert len(seen) == 5
    assert fingerprint(tmp_path / "a") in seen
    assert fingerprint(tmp_path / "elsewhere" / "y") == fingerprint(tmp_path / "elsewhere" / "y")
