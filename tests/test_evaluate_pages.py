"""What an evaluation leaves: sweeps, comparisons, the report, the card; and how it goes on after a kill."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from diffusion_art.config import config_dir
from diffusion_art.errors import UserError
from diffusion_art.evaluate import evaluate
from diffusion_art.evaluation import evaluate_runs as command
from diffusion_art.evaluation.model_card import model_card
from diffusion_art.evaluation.subject import FOLDER
from diffusion_art.files import CACHE_VARIABLE
from tests.fakes import MODEL_CONFIG, SAMPLER_CONFIG, toy_model, write_checkpoint

pytestmark = pytest.mark.slow  # a real browser, or many real runs

PAINTER = {"_target_": "diffusion_art.sources.painter.Painter", "seed": 3, "count": 64, "image_size_px": 16}
CONFIG = {"model": MODEL_CONFIG, "sampler": SAMPLER_CONFIG, "guidance_scale": 2.0, "data": {"source": PAINTER}}
FEW = ["features=judge", "pictures=40", "val_pictures=5", "count=6", "held_out_count=4", "batch_size=8", "device=cpu"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def run(*overrides: str) -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return evaluate(compose("evaluate", [*FEW, *overrides]))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    for step in (5, 10):
        path = tmp_path / "logs" / "one" / "checkpoints" / f"step_{step:08d}.ckpt"
        write_checkpoint(path, toy_model(seed=step), step=step, config=CONFIG)
    return tmp_path / "logs" / "one"


PAINT = command.paint


class Killed(BaseException):
    """As Ctrl-C would, in the middle."""


def counting(monkeypatch, *, dies_at: int | None = None) -> list[int]:
    """The batches painted, and a stop at one of them."""
    painted = []

    def counted(model, captions, seeds, **how):
        if len(painted) == dies_at:
            raise Killed
        painted.append(len(seeds))
        return PAINT(model, captions, seeds, **how)

    monkeypatch.setattr(command, "paint", counted)
    return painted


def test_a_killed_evaluation_goes_on_with_finished_metrics_and_pictures(trained: Path, monkeypatch):
    asked = [f"run={trained}", "metrics=[caption_following,kid,precision]"]
    whole = counting(monkeypatch)
    result = run(*asked, f"out={trained / 'whole'}")
    assert len(whole) == 2 + 5  # ten prompts and forty pictures, eight at a time
    stopped = counting(monkeypatch, dies_at=4)
    with pytest.raises(Killed):
        run(*asked)
    assert len(stopped) == 4
    assert list((trained / FOLDER).glob("*/pictures-*"))
    rest = counting(monkeypatch)
    assert run(*asked) == result
    assert len(rest) == 7 - 4
    assert not (trained / FOLDER).exists()
    other = counting(monkeypatch)
    run(*asked, "seed=1")
    assert len(other) == 7


@pytest.mark.slow
def test_pictures_that_are_kept_serve_further_metrics(trained: Path, monkeypatch):
    run(f"run={trained}", "metrics=kid", "keep_pictures=true")
    painted = counting(monkeypatch)
    run(f"run={trained}", "metrics=[recall,memorisation]", "keep_pictures=true")
    assert painted == []


@pytest.mark.slow
def test_features_of_real_pictures_are_taken_once(trained: Path, tmp_path: Path):
    first = run(f"run={trained}", "metrics=kid")
    (kept,) = (tmp_path / "cache" / "features").iterdir()
    written = kept.stat().st_mtime_ns
    assert run(f"run={trained}", "metrics=kid") == first
    assert kept.stat().st_mtime_ns == written
    kept.write_bytes(b"cut short")
    assert run(f"run={trained}", "metrics=kid") == first
    run(f"run={trained}", "metrics=kid", "pictures=41")
    assert len(list(kept.parent.iterdir())) == 2


@pytest.mark.slow
def test_several_values_are_a_sweep_with_curves(trained: Path):
    result = run(f"run={trained}", "metrics=[kid,recall]", "guidance_scale=[1,3]", "num_steps=[1,2]")
    assert result["swept"] == {"num_steps": [1, 2], "guidance_scale": [1, 3]}
    assert [point["at"] for point in result["points"]] == [
        {"num_steps": steps, "guidance_scale": scale} for steps in (1, 2) for scale in (1, 3)
    ]
    assert [point["sampler"]["num_steps"] for point in result["points"]] == [1, 1, 2, 2]
    assert len({point["kid"]["kid"] for point in result["points"]}) == 4
    alone = run(f"run={trained}", "metrics=kid", "guidance_scale=3", "num_steps=2", f"out={trained / 'alone'}")
    assert alone["kid"] == result["points"][-1]["kid"]
    page = (trained / "report.html").read_text()
    assert page.count("<svg") == 1
    assert {"KID", "recall", "guidance 1", "guidance 3"} <= set(re.findall(r">([^<>]+?)(?:, %)?(?: \(.*?\))?<", page))


@pytest.mark.slow
def test_checkpoints_and_samplers_are_swept_too(trained: Path):
    result = run(f"run={trained}", "metrics=val_x0", "checkpoint=all")
    assert [point["at"]["checkpoint"] for point in result["points"]] == ["step_00000005", "step_00000010"]
    assert result["points"][0]["val_x0"]["val_x0"] != result["points"][1]["val_x0"]["val_x0"]
    with pytest.raises(UserError, match=r"no checkpoint named 'step_7'"):
        run(f"run={trained}", "metrics=val_x0", "checkpoint=[last,step_7]")
    with pytest.raises(UserError, match=r"num_steps=\[\] holds nothing"):
        run(f"run={trained}", "metrics=val_x0", "num_steps=[]")


def test_the_command_takes_a_list_of_samplers(trained: Path, run_here):
    words = ["metrics=kid", "sampler=[ddim,euler]", "num_steps=2", *FEW]
    status, said, complaints = run_here("evaluate", f"run={trained}", *words)
    assert status == 0, complaints
    result = json.loads((trained / "evaluation.json").read_text())
    assert [point["sampler"]["name"] for point in result["points"]] == ["ddim", "euler"]
    assert "KID" in said


def test_a_setting_of_one_sampler_beside_a_list_of_them_is_refused(trained: Path, run_here):
    words = ["metrics=kid", "sampler=[ddim,euler]", "sampler.eta=1"]
    status, _, complaints = run_here("evaluate", f"run={trained}", *words)
    assert status == 1
    assert "sampler.eta=1 is for one sampler" in complaints


def test_runs_are_compared_in_one_table(trained: Path, run_here):
    other = trained.with_name("two")
    write_checkpoint(other / "checkpoints" / "step_00000005.ckpt", toy_model(seed=7), config=CONFIG)
    words = [f"run=[{trained},{other}]", "metrics=[kid,val_x0]", *FEW]
    status, said, complaints = run_here("evaluate", *words)
    assert status == 0, complaints
    result = json.loads((trained.parent / "comparison.json").read_text())
    assert list(result["runs"]) == ["one", "two"]
    for folder in (trained, other):
        assert json.loads((folder / "evaluation.json").read_text()) == result["runs"][folder.name]
    assert re.search(r"\| one \| .* \|\n\| two \| ", said)
    page = (trained.parent / "comparison.html").read_text()
    assert page.count('class="number best"') == 2


def test_checkpoint_files_of_one_run_are_compared_each_with_its_own_results(trained: Path):
    files = sorted((trained / "checkpoints").iterdir())
    result = run(f"run=[{files[0]},{files[1]}]", "metrics=val_x0")
    assert list(result["runs"]) == ["one step_00000005", "one step_00000010"]
    for file, told in zip(files, result["runs"].values()):
        assert json.loads((trained / "evaluation" / file.stem / "evaluation.json").read_text()) == told
    assert not (trained / "evaluation.json").exists()


def test_files_that_lie_in_no_run_have_results_and_names_of_their_own(trained: Path, tmp_path: Path):
    first, second = sorted((trained / "checkpoints").iterdir())
    files = [tmp_path / "one" / "a.ckpt", tmp_path / "one" / "b.ckpt", tmp_path / "other" / "a.ckpt"]
    for file, content in zip(files, (first, second, second)):
        file.parent.mkdir(exist_ok=True)
        shutil.copy(content, file)
    result = run(f"run=[{','.join(map(str, files))}]", "metrics=val_x0")
    assert list(result["runs"]) == ["a", "b", f"a ({files[2]})"]
    for file, told in zip(files, result["runs"].values()):
        assert json.loads((file.parent / "evaluation" / file.stem / "evaluation.json").read_text()) == told


def test_the_report_is_one_file_that_asks_for_nothing(trained: Path):
    result = run(f"run={trained}", "metrics=[caption_following,kid,precision,memorisation,val_x0]")
    page = (trained / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    asked_for = re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']*)|url\((?!#)([^)]*)\)|@import|<script|<link""", page)
    assert asked_for == []
    assert f"{100 * result['precision']['precision']:.1f} %" in page
    for text in ("Piet Mondrian", "De Stijl", "log SNR", "nearest"):
        assert text in page
    assert (trained / "evaluation.png").is_file()


def test_slices_have_their_counts_and_small_ones_no_figure(trained: Path):
    result = run(f"run={trained}", "metrics=[kid,memorisation]", "slices=[genre,style]")
    genres = result["kid"]["by_genre"]
    assert sum(group["pictures"] for group in genres.values()) == 40
    assert all((group["kid"] is None) == (group["pictures"] < 32) for group in genres.values())
    shares = result["memorisation"]["by_style"].values()
    assert sum(group["memorised"] * group["pictures"] for group in shares) == result["memorisation"]["copies"]
    assert "by_artist" not in result["kid"]


def test_the_card_is_filled_from_the_run_and_never_written_over_yours(trained: Path, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["evaluate", f"run={trained}"])
    run(f"run={trained}", "metrics=[kid,memorisation]")
    card = trained / "MODEL_CARD.md"
    text = card.read_text()
    assert "python -m diffusion_art.serve run=~/logs/one" in text
    assert "run=~/logs/one" in (trained / "report.html").read_text()
    assert str(tmp_path) not in text + (trained / "report.html").read_text()
    for part in ("# one", "16 x 16 pixels", "10 training steps", "Painter", "UNet", "| KID |", "memorisation.png"):
        assert part in text, part
    card.write_text("# Mine\n")
    run(f"run={trained}", "metrics=val_x0")
    assert card.read_text() == "# Mine\n"


def test_the_card_names_the_source_and_not_where_it_lay(tmp_path: Path):
    records = "diffusion_art.sources.folder.records.Records"
    places = {"path": "/home/someone/clients/table.csv", "images": "/home/someone/scans"}
    config = CONFIG | {"data": {"source": {"_target_": records, **places, "file_column": "file"}}}
    told = {"step": 1, "parameters": 1000, "provenance": {}, "run": "one", "folder": tmp_path}
    painted = {"checkpoint": "step_1", "weights": "ema", "sampler": {"name": "ddim"}, "guidance_scale": 2.0}
    card = model_card("one", config, painted, {}, **told)
    assert "- Made from `Records` (path `table.csv`, images `scans`, file_column file)." in card
    assert "someone" not in card
