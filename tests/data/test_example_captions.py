"""The captions of its own data that a run's sample grids paint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.streaming.client.readers import ReadRequest
from diffusion_art.streaming.client.shard_reader import ShardReader
from tests.fakes_buckets import bucketed_shards
from tests.streaming.eir.serving import EirStreamer, serving, streaming


def data(path: Path | None = None, **options) -> StreamDataModule:
    return StreamDataModule(shards=path or (), image_size_px=16, global_batch_size=8, num_workers=0, **options)


@pytest.mark.slow
def test_they_are_of_validation_pictures_and_the_same_by_every_way(painter_shards):
    found = data(painter_shards, url="shards").example_captions(12)
    assert len(found) == len(set(found)) == 12
    held = ShardReader(painter_shards).info().splits["val"]
    (validation,) = ShardReader(painter_shards).read([ReadRequest("val", None, 0, held)])
    assert set(found) <= {sample.caption for sample in validation}
    assert data(painter_shards, url="auto").example_captions(12) == found
    with serving(painter_shards) as url:
        assert data(url=url).example_captions(12) == found


@pytest.mark.parametrize("batches", [1, 3, 0.5])
def test_of_an_overfitted_run_they_are_those_of_the_pictures_it_trains_on(painter_shards, tmp_path, batches):
    bucketed_shards(tmp_path / "buckets")
    for shards in (painter_shards, tmp_path / "buckets"):
        module = data(shards, url="shards", overfit_batches=batches)
        found = module.example_captions(6)
        module.setup()
        trained = {caption for batch in module.val_dataloader() for caption in batch.captions}
        module.teardown()
        assert len(found) > 3
        assert set(found) <= trained


def test_an_eir_server_is_asked_for_none(painter_shards):
    with streaming(EirStreamer()) as url:
        assert data(url=url).example_captions(12) == []


def test_a_run_paints_them(painter_shards, run_here, tmp_path):
    settings = ["+debug=tiny", "data=default", f"data.path={painter_shards}", "data.url=shards", "data.num_workers=0"]
    settings += ["callbacks.progress=null", "callbacks.loss_plot=null", "run=own", "trainer.max_steps=2"]
    status, said, complaints = run_here("train", *settings)
    assert status == 0, said + complaints
    expected = data(painter_shards, url="shards").example_captions(12)
    grid = json.loads((tmp_path / "logs/tiny/own/samples/step_00000002.json").read_text())
    assert grid["prompts"] == expected
