"""`python -m diffusion_art.evaluate`: figures for a run, and one sentence for each mistake."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from diffusion_art.config import build, config_dir, plain
from diffusion_art.errors import UserError
from diffusion_art.evaluate import evaluate
from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.evaluate_runs import Opened, names_that_fit
from diffusion_art.evaluation.metrics import metrics_of
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.report import Entry, comparison, comparison_text
from diffusion_art.files import CACHE_VARIABLE
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.manifest import Manifest
from diffusion_art.sources.painter import Painter
from tests.fakes import MODEL_CONFIG, SAMPLER_CONFIG, toy_model, toy_run, write_checkpoint

PAINTER = {"_target_": "diffusion_art.sources.painter.Painter", "seed": 3, "count": 64, "image_size_px": 16}
PAINTERS = {
    "model": MODEL_CONFIG,
    "sampler": SAMPLER_CONFIG,
    "guidance_scale": 2.0,
    "data": {"source": PAINTER},
}
FEW = ["count=6", "held_out_count=4", "batch_size=4", "device=cpu"]


def run(*overrides: str) -> dict:
    return evaluate(compose_evaluate(*overrides))


def compose_evaluate(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("evaluate", list(overrides))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "run" / "checkpoints" / "step_00000005.ckpt", toy_model(), config=PAINTERS)
    return tmp_path / "run"


def test_figures_are_written_into_the_run_folder(trained: Path):
    result = run(f"run={trained}", *FEW)
    assert json.loads((trained / "evaluation.json").read_text()) == result
    saved = json.loads((trained / "caption_following.json").read_text())
    assert {key: saved[key] for key in result["caption_following"]} == result["caption_following"]
    assert len(saved["rows"]) == 10
    assert (saved["style_count"], saved["palette_count"], saved["held_out_count"]) == (6, 6, 4)
    for part in (saved, result):
        assert part["sampler"] == build(SAMPLER_CONFIG).describe()
        assert part["guidance_scale"] == 2.0


def test_the_same_call_gives_the_same_figures(trained: Path, tmp_path: Path):
    rows = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(f"run={trained}", f"out={tmp_path / name}", f"seed={seed}", *FEW)
        rows.append(json.loads((tmp_path / name / "caption_following.json").read_text())["rows"])
    assert rows[0] == rows[1] != rows[2]
    assert not (trained / "caption_following.json").exists()


def test_distances_and_x0_error_stand_beside_caption_following(trained: Path):
    few = ["pictures=12", "val_pictures=5", "features=judge", *FEW]
    result = run(f"run={trained}", "metrics=[kid,val_x0]", *few)
    assert sorted(result) == ["checkpoint", "guidance", "guidance_scale", "kid", "sampler", "val_x0", "weights"]
    assert not (trained / "caption_following.json").exists()
    assert result["kid"]["features"] == "judge"
    assert result["kid"]["pictures"] == result["kid"]["subset_size"] == 12
    assert result["val_x0"]["pictures"] == 5
    again = run(f"run={trained}", "metrics=val_x0", "weights=raw", *few)
    assert again["val_x0"]["val_x0"] != result["val_x0"]["val_x0"]
    assert run(f"run={trained}", "metrics=[kid]", *few)["kid"] == result["kid"]


@pytest.mark.slow
def test_frechet_distance_of_a_thousand_pictures(trained: Path):
    few = ["pictures=1000", "features=judge", "num_steps=1", "batch_size=64"]
    result = run(f"run={trained}", "metrics=[fd]", *few)
    assert result["fd"]["fd"] > 0
    assert result["fd"]["pictures"] == 1000


@pytest.mark.slow
def test_a_run_on_other_pictures_is_compared_with_its_own(tmp_path: Path, painter_shards: Path):
    """Its training pictures for distances, its validation pictures for the loss; or those of `data`."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        settings = plain(compose("train", ["+experiment=quickstart32", "+debug=tiny", "data.source=null"]).data)
    config = {
        "model": MODEL_CONFIG,
        "sampler": SAMPLER_CONFIG,
        "guidance_scale": 1.0,
        "data": settings | {"path": str(painter_shards)},
    }
    folder = write_checkpoint(tmp_path / "run" / "checkpoints" / "step_00000005.ckpt", toy_model(), config=config)
    few = ["pictures=20", "val_pictures=500", "features=judge", *FEW]
    result = run(f"run={folder}", "metrics=[kid,val_x0]", *few)
    kept = Manifest.load(painter_shards).splits["val"]
    assert result["val_x0"]["pictures"] == kept < 500
    config["data"] = settings | {"path": None, "url": "ws://127.0.0.1:1/ws"}
    folder = write_checkpoint(tmp_path / "away" / "checkpoints" / "step_00000005.ckpt", toy_model(), config=config)
    with pytest.raises(UserError, match="real=FOLDER"):
        run(f"run={folder}", "metrics=[kid]", *few)
    assert run(f"run={folder}", "metrics=[kid]", f"real={painter_shards}", *few)["kid"] == result["kid"]
    with pytest.raises(UserError, match=r"there are \d+ real pictures, and 400 were asked for"):
        run(f"run={folder}", "metrics=[kid]", f"real={painter_shards}", *few, "pictures=400")


def test_sampler_steps_and_guidance_can_be_changed(trained: Path):
    result = run(f"run={trained}", "sampler=ddim", "num_steps=2", "guidance_scale=1", *FEW)
    assert (result["sampler"]["name"], result["sampler"]["num_steps"]) == ("ddim", 2)
    assert result["guidance_scale"] == 1


def test_a_run_on_other_pictures_is_not_asked_for_the_painters_styles(tmp_path: Path, caplog):
    folder = toy_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"not trained on the painter's pictures\. Measure others: 'metrics=\[kid"):
        run(f"run={folder}", "metrics=caption_following", *FEW)
    assert not (folder / "caption_following.json").exists()


@pytest.mark.slow
def test_without_metrics_and_pictures_it_measures_what_the_data_allow(few_shards: Path, caplog):
    caplog.set_level("INFO")
    result = run(f"run={few_shards}", "features=judge", *FEW)
    assert result["kid"]["pictures"] == 9
    assert not {"val_x0", "caption_following", "left_out"} & set(result)
    said = caplog.text
    assert "measuring kid, without caption_following, which is for the painter's pictures, and without val_x0" in said
    assert "there are 9 real pictures: pictures=9" in said
    assert "painting 9 pictures, 3 steps each; then kid" in said


def test_kept_pictures_are_measured_too_and_latents_are_not(painter_shards: Path, tmp_path: Path):
    config = {"model": {"image_size_px": 16}, "data": {"path": str(painter_shards), "image_size_px": 16}}
    nodes, networks = plain(compose_evaluate("pictures=9").metric), Networks("cpu")
    model = toy_model()
    run = Opened("run", lambda: model, RunData(config))
    assert names_that_fit([run], nodes, networks=networks) == ["kid", "val_x0"]
    model.codec.bounded = False
    assert names_that_fit([run], nodes, networks=networks) == ["kid"]
    painters = Opened("other", lambda: model, RunData(PAINTERS))
    assert names_that_fit([painters], nodes, networks=networks) == ["caption_following"]
    assert names_that_fit([painters, run], nodes, networks=networks) == ["kid"]


def test_it_is_left_out_where_others_are_asked_for_too(few_shards: Path, caplog):
    result = run(f"run={few_shards}", "metrics=[caption_following,kid]", "features=judge", "pictures=9", *FEW)
    assert "kid" in result
    assert "caption_following" not in result
    assert "it is left out" in caplog.text


@pytest.fixture
def few_shards(tmp_path: Path) -> Path:
    """A run on shards of nine pictures and none for validation."""
    shards = build_shards(Painter(count=9, image_size_px=16), tmp_path / "few", image_size_px=16, val_fraction=0.0)
    assert shards.splits["train"] == 9
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        data = plain(compose("train", ["+experiment=quickstart32", "+debug=tiny", "data.source=null"]).data)
    config = {
        "model": MODEL_CONFIG,
        "sampler": SAMPLER_CONFIG,
        "guidance_scale": 1.0,
        "data": data | {"path": str(tmp_path / "few")},
    }
    write_checkpoint(tmp_path / "run" / "checkpoints" / "step_00000005.ckpt", toy_model(), config=config)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["metrics=[val_x0]"], "this data has none"),
        (["metrics=[fd]", "features=judge"], r"fd takes at least 1,000 real pictures, and there are 9\. .*pictures=9"),
        (
            ["metrics=[kid]", "features=judge", "pictures=1024"],
            r"9 real pictures, and 1,024 were asked for: give pictures=9",
        ),
    ],
)
def test_too_few_pictures_are_one_error_with_one_answer(few_shards: Path, overrides: list[str], told: str):
    with pytest.raises(UserError, match=told):
        run(f"run={few_shards}", *overrides, *FEW)


def test_of_several_runs_all_have_enough_pictures_before_one_is_measured(few_shards: Path, tmp_path: Path):
    write_checkpoint(tmp_path / "a" / "checkpoints" / "step_00000005.ckpt", toy_model(), config=PAINTERS)
    asked = ["metrics=[caption_following,kid]", "features=judge", "pictures=12"]
    with pytest.raises(UserError, match=f"^{few_shards}: there are 9 real pictures, and 12 were asked for"):
        run(f"run=[{tmp_path / 'a'},{few_shards}]", *asked, *FEW)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["checkpoints"]


def test_figures_of_runs_that_were_not_measured_alike_are_marked(few_shards: Path, tmp_path: Path):
    write_checkpoint(tmp_path / "a" / "checkpoints" / "step_00000005.ckpt", toy_model(), config=PAINTERS)
    metrics = metrics_of(plain(compose_evaluate("pictures=9").metric), ["kid", "val_x0"])
    asked = ["metrics=[kid]", "features=judge", "pictures=9", *FEW]
    entries = [Entry(folder.name, run(f"run={folder}", *asked), folder) for folder in (tmp_path / "a", few_shards)]
    assert entries[0].result["kid"]["deviation"] is None
    table = comparison_text(entries, metrics)
    assert table.count(" (judge, 9 pictures) |") == 2
    assert "KID was not measured alike" in table
    assert 'class="number best"' not in comparison(entries, metrics)
    alike = [entries[0], replace(entries[1], result=entries[0].result)]
    assert "alike" not in comparison_text(alike, metrics)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], "run=logs/quickstart"),
        (["run=nowhere/at/all"], "nowhere/at/all"),
        (["judge=sleep"], "judge=sleep"),
        (["run=x", "count=0"], "count=0"),
        (["run=x", "batch_size=-2"], "batch_size=-2"),
        (["run=x", "metrics=[fd,beauty]"], "beauty.* choose from caption_following, fd, kid, val_x0"),
        (["run=x", "metrics=[fd]", "features=judge", "pictures=999"], "pictures=1000"),
        (["run=x", "metrics=[kid]", "features=vgg"], "features=vgg"),
    ],
)
def test_mistakes_get_a_sentence_with_the_value(overrides: list[str], told: str):
    with pytest.raises(UserError, match=told):
        run(*overrides)


def test_unknown_device_is_named(trained: Path):
    with pytest.raises(UserError, match="device=abacus"):
        run(f"run={trained}", "device=abacus", *FEW[:3])


@pytest.mark.slow
def test_the_real_command(trained: Path, tmp_path: Path, run_command):
    done = run_command("evaluate", f"run={trained}", *FEW, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "caption following: style" in done.stdout
    assert (trained / "caption_following.json").is_file()
    assert (trained / "evaluation.json").is_file()
    failed = run_command("evaluate", f"run={tmp_path / 'nothing'}", cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr
