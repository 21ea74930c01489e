"""What a change that is meant to alter no numbers must leave alone. `make golden` writes it anew, on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_art.shards.manifest import MANIFEST_FILE, Manifest
from tests.golden import trace
from tests.shards.toy import write_toy


def assert_paints_the_same(model: Path):
    with Image.open(trace.HERE / "picture.png") as golden:
        difference = np.asarray(golden).astype(int) - trace.picture(model).astype(int)
    assert np.abs(difference).max() <= 1


def test_twenty_steps_have_the_same_losses_and_paint_the_same_picture(run_here, tmp_path):
    trace.bring_shards(tmp_path)
    status, said, complaints = run_here("train", *trace.SETTINGS)
    assert status == 0, said + complaints
    golden = json.loads((trace.HERE / "losses.json").read_text())
    assert len(golden) == trace.STEPS
    assert trace.losses(tmp_path / trace.RUN) == pytest.approx(golden, abs=1e-5)
    assert_paints_the_same(tmp_path / trace.RUN)


@pytest.mark.parametrize("name", ["last.ckpt", "model.safetensors"])
def test_models_written_before_paint_the_same_picture(name):
    assert_paints_the_same(trace.HERE / "old" / name)


@pytest.mark.slow
def test_a_checkpoint_written_before_is_gone_on_with(run_here, tmp_path):
    trace.bring_shards(tmp_path)
    old = f"ckpt_path={trace.HERE / 'old' / 'last.ckpt'}"
    status, said, complaints = run_here("train", *trace.SETTINGS, old, "trainer.max_steps=22")
    assert status == 0, said + complaints
    assert len(trace.losses(tmp_path / trace.RUN)) == 2


def test_a_shard_has_the_same_bytes(tmp_path):
    write_toy(tmp_path, train=8, val=2)
    golden = sorted(path.name for path in (trace.HERE / "toy").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == golden
    for name in set(golden) - {MANIFEST_FILE}:  # which names the version that built it
        assert (tmp_path / name).read_bytes() == (trace.HERE / "toy" / name).read_bytes(), name
    assert Manifest.load(tmp_path).digest == Manifest.load(trace.HERE / "toy").digest


def test_a_request_is_answered_by_the_same_bytes():
    assert trace.frame() == (trace.HERE / "frame.bin").read_bytes()


def test_an_epoch_has_the_same_order():
    assert trace.order() == json.loads((trace.HERE / "order.json").read_text())
