"""The arithmetic of the estimate, with the figures of a measurement that was really written down."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from diffusion_art.errors import UserError
from diffusion_art.files import key_of
from diffusion_art.prompts import EXAMPLES
from diffusion_art.stages.estimate import Line, Measured, check_disk, lines, on_paper, tell
from diffusion_art.stages.marks import Marks
from diffusion_art.stages.measure import _has_gpu, find
from diffusion_art.stages.plan import Training, composed, measurement
from diffusion_art.units import duration, size
from tests.fakes_sources import encoded, picture, wikiart_folder, write_files
from tests.sources.tars.test_tars import write_tar

ASKED = ("+experiment=wikiart", "run=first", "trainer.max_steps=1000")


def test_the_facts_of_a_training_are_those_of_its_config():
    training = Training.of(composed(ASKED), pictures=103_250)
    assert training.run_dir == Path("logs/wikiart/first")
    assert (training.image_size_px, training.steps, training.pictures_per_step) == (128, 1000, 128)
    assert training.painted == 16 * (2 + 3)  # steps 0 and 1,000, and 100, 250, 500
    assert training.validated == 1024
    by_epochs = composed((*ASKED[:2], "trainer.max_steps=-1", "trainer.max_epochs=3"))
    assert Training.of(by_epochs, pictures=1280).steps == 30


def made_in(folder: Path) -> dict[str, Path]:
    """Where a run's stages would leave what they make."""
    names = {"shards": "data/manifest.json", "train": "run/checkpoints", "evaluate": "run/evaluation.json"}
    return {name: folder / path for name, path in (names | {"export": "model", "download": "cache"}).items()}


def test_time_and_disk_follow_from_the_measurement(tmp_path):
    training = Training.of(composed(ASKED), pictures=103_250)
    known = {"pictures": 103_250, "evaluated": 1024, "cores": 2, "makes": made_in(tmp_path)}
    measured = Measured(images_per_s=100.0, checkpoint_bytes=10**9)
    rows = {row.stage: row for row in lines(training, measured, download_bytes=1.7e9, **known)}
    assert rows["download"].seconds == pytest.approx(85)
    assert rows["train"].bytes == 4e9
    steps = training.sampler_steps
    assert rows["train"].seconds == pytest.approx((128_000 + 80 * 2 * steps / 3 + 1024 / 3) / 100)
    assert rows["evaluate"].seconds == pytest.approx(1024 * 2 * steps / 300)
    assert rows["shards"].bytes == pytest.approx(103_250 * 128**2 * 0.6)
    with pytest.raises(UserError, match="are needed and"):
        check_disk(lines(training, Measured(1.0, 10**18), download_bytes=0, **known))


def test_what_is_on_the_disk_already_is_not_needed_again(tmp_path):
    training, makes = Training.of(composed(ASKED), pictures=1000), made_in(tmp_path)

    def wanted(stage: str) -> float | None:
        known = {"pictures": 1000, "download_bytes": 0, "evaluated": 0, "cores": 2, "makes": makes}
        return next(row.bytes for row in lines(training, Measured(1.0, 1000), **known) if row.stage == stage)

    before = wanted("shards")
    write_files(tmp_path, {"data/.building/shards/a.tar": b"x" * 500, "model": b"x" * 900})
    write_files(makes["train"], {"step_1.ckpt": b"x" * 1000, "step_2.ckpt/a": b"x" * 1000})
    (makes["train"] / "last.ckpt").symlink_to("step_1.ckpt")
    assert (wanted("shards"), wanted("train"), wanted("export")) == (before - 500, 4000 - 2000, 100)
    write_files(tmp_path, {"data/manifest.json": "{}"})
    assert wanted("shards") == 0


def test_each_disk_has_room_of_its_own(tmp_path):
    def row(place: Path, share: float) -> Line:
        return Line("train", 0, share * shutil.disk_usage(place).free, "", place / "not" / "there")

    with pytest.raises(UserError, match=f"are free in {tmp_path}"):
        check_disk([row(tmp_path, 0.6), row(tmp_path, 0.6)])
    other = Path("/dev/shm")
    if other.is_dir() and other.stat().st_dev != tmp_path.stat().st_dev:
        check_disk([row(tmp_path, 0.6), row(other, 0.6)])


def test_paper_has_figures_for_the_experiment_it_counted():
    assert [share for share, _ in on_paper("wikiart", 6_400_000)] == ["at 25%", "at 50%"]
    assert on_paper("wikiart", 6_400_000)[0][1] == pytest.approx(1.517, abs=0.01)
    assert on_paper("quickstart", 1000) == []


def test_a_measurement_that_left_nothing_is_told(tmp_path):
    with pytest.raises(UserError, match="left no rate"):
        Measured.of(tmp_path)


def test_units():
    assert [duration(seconds) for seconds in (40, 720, 12_600, 2e6)] == ["40 s", "12 min", "3.5 h", "23 days"]
    assert [size(count) for count in (3e6, 2.1e9)] == ["3 MB", "2.1 GB"]


def test_without_its_folder_a_measurement_is_made_again(tmp_path):
    asked = {"training": "wikiart", "train": None, "measure": {"steps": 4}}
    training = Training.of(composed(ASKED), pictures=103_250)
    stage = measurement(asked, training, tmp_path / "measure", pictures=4)
    marks = Marks(tmp_path / "marks", [stage])
    marks.run(stage, lambda stage: (tmp_path / "measure").mkdir())
    assert marks.is_done(stage)
    (tmp_path / "measure").rmdir()  # as Measured.of advises
    assert not marks.is_done(stage)


def test_a_run_that_keeps_all_checkpoints_keeps_every_one_it_writes():
    words = (*ASKED, "callbacks.checkpoints.every_n_steps=100")
    assert Training.of(composed(words), pictures=1280).kept_checkpoints == 4
    for key in ("keep_last", "keep_best"):
        config = composed((*words, f"callbacks.checkpoints.{key}=-1"))
        assert Training.of(config, pictures=1280).kept_checkpoints == 11


def test_epochs_and_shares_of_a_run_are_those_of_its_training():
    words = [*ASKED[:2], "trainer.max_epochs=3", "trainer.val_check_interval=0.25"]
    training = Training.of(composed(words), pictures=10**7, typed=[key_of(word) for word in words])
    assert training.steps == 234_375  # in place of the experiment's 50,000
    assert training.validated == 4 * 1024
    both = composed((*ASKED, "trainer.max_epochs=3", "trainer.val_check_interval=0"))
    training = Training.of(both, pictures=1281, typed=("trainer.max_epochs", "trainer.max_steps"))
    assert (training.steps, training.validated) == (31, 0)


@pytest.mark.parametrize(
    ("words", "painted"),
    [
        (["callbacks.samples.every_n_steps=0"], 16 * (2 + 3)),
        (["callbacks.samples.every_n_steps=300"], 16 * (5 + 3)),
        (["callbacks.samples.at_steps=[]", "prompts=[one,two]"], 2 * 2),
        (["callbacks.samples.at_steps=[]", "prompts=auto"], 2 * EXAMPLES),
        (["callbacks.samples=null"], 0),
    ],
)
def test_grids_have_a_picture_of_each_prompt(words, painted):
    assert Training.of(composed((*ASKED, *words)), pictures=1280).painted == painted


def test_any_gpu_of_torchs_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for there in (False, True):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=there: there)
        assert _has_gpu() == there


def test_what_a_source_does_not_tell_is_unknown(tmp_path, capsys):
    write_tar(tmp_path / "00000.tar", [("0.jpg", encoded(picture(0))), ("0.txt", b"a cat")])
    collection = find({"_target_": "diffusion_art.sources.tars.tars.Tars", "path": str(tmp_path)})
    assert collection.pictures is None
    in_epochs = Training.of(composed((*ASKED[:2], "trainer.max_epochs=3")), pictures=None, typed=["trainer.max_epochs"])
    assert in_epochs.steps is None
    for training, unknown in ((in_epochs, 3), (Training.of(composed(ASKED), pictures=None), 2)):
        known = {"pictures": None, "download_bytes": 0, "evaluated": 4, "cores": 2, "makes": made_in(tmp_path)}
        rows = lines(training, Measured(images_per_s=1.0, checkpoint_bytes=1), **known)
        assert [value for row in rows for value in (row.seconds, row.bytes)].count(None) == unknown
        tell(rows, price_per_hour=1.0, paper=[])
        said = capsys.readouterr().out
        assert "unknown" in said
        assert said.rstrip().splitlines()[-1].startswith("all known")
        check_disk(rows)


def test_a_collection_tells_the_name_of_its_shards(tmp_path):
    source = {"_target_": "diffusion_art.sources.parquet.hub.WikiArt", "repo_id": "Someone/Art", "revision": None}
    collection = find(source | {"path": str(wikiart_folder(tmp_path, count=3))})
    assert (collection.name, collection.pictures, collection.download_bytes) == ("art", 6, 0)
