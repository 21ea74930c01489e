"""Which styles and artists shards hold, by the real command."""

from __future__ import annotations

import json

from diffusion_art.shards.build.build import build_shards
from diffusion_art.sources.parquet.hub import WikiArt
from tests.fakes_sources import wikiart_folder


def test_values_of_columns_are_counted_in_every_split(run_here, tmp_path):
    source = WikiArt(wikiart_folder(tmp_path / "copy", count=14, files=1))
    build_shards(source, tmp_path / "shards", image_size_px=16, val_fraction=0.3, workers=1, progress=False)
    words = ("path=shards", "out=found.json", "by=[artist,date,nothing]", "top=2")
    status, said, complaints = run_here("shards", "statistics", *words)
    assert status == 0, complaints
    found = json.loads((tmp_path / "found.json").read_text())
    both = [found["splits"][split] for split in ("train", "val")]
    artists = [name for split in both for name, count in split["artist"]["counts"].items() for _ in range(count)]
    assert sorted(set(artists)) == [f"Artist {number}" for number in range(7)]
    assert len(artists) == 14
    assert sum(split["nothing"]["without"] for split in both) == 14
    assert sum(split["date"]["without"] for split in both) == 5  # "None"
    assert "artist of train:" in said
    assert said.count("Artist ") == 2
    status, said, complaints = run_here("shards", "statistics", "path=shards", "by=artist")
    assert status == 0, complaints
    assert "artist of train:" in said
    assert " a of train:" not in f" {said}".replace("\n", " ")
