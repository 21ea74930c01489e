"""Notebooks are kept with what they showed of a real run, and run from top to bottom on a small one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import matplotlib
import nbformat
import pytest
from matplotlib import pyplot as plt
from nbclient import NotebookClient
from PIL import Image

from diffusion_art.errors import UserError
from diffusion_art.shards.build.build import build_shards
from diffusion_art.sources.painter import Painter
from tests.fakes import MODEL_CONFIG, SAMPLER_CONFIG, toy_model, toy_run, write_checkpoint
from tests.sharing.toys import checkpoint_of

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

EXPLORED = nbformat.read(NOTEBOOKS[0].with_name("explore_checkpoint.ipynb"), as_version=4).cells


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def outputs(notebook, *, mime=""):
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output for output in found if any(kind.startswith(mime) for kind in output.get("data", {mime: ""}))]


def test_it_is_valid_and_was_run_from_top_to_bottom(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(outputs(notebook, mime="image/")) >= 3
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs(notebook))


def test_it_is_small_and_tells_nothing_of_the_machine_that_ran_it(notebook):
    assert len(nbformat.writes(notebook)) < 1_500_000
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    told = [
        str(text)
        for output in outputs(notebook)
        for kind, text in [*output.get("data", {}).items(), ("", output.get("text", ""))]
        if not kind.startswith("image/")
    ]
    assert not re.search(r"/(home|root|tmp|work|usr|Users|mnt)/", "\n".join(told))


def test_it_opens_with_the_question_it_answers(notebook):
    assert notebook.cells[0].cell_type == "markdown"
    assert "?" in notebook.cells[0].source.splitlines()[0]


def test_it_defines_no_models(notebook):
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "nn.Module" not in source


def small_bench(folder: Path) -> dict[str, str]:
    """Two runs that differ, and shards; what points the notebooks to them."""
    for name, lr in (("first", 0.1), ("second", 0.2)):
        run = toy_run(folder / "logs" / name, toy_model())
        (run / "config.yaml").write_text(f"optim:\n  lr: {lr}\n  betas: [0.9, 0.99]\n")
        counts = {"style": lr * 5, "style_count": 24, "palette": 0.5, "palette_count": 24}
        (run / "caption_following.json").write_text(json.dumps(counts))
        kid = {"kid": lr, "error": 0.05, "features": "judge", "pictures": 64}
        (run / "evaluation.json").write_text(json.dumps({"kid": kid, "caption_following": counts}))
    build_shards(
        Painter(count=96, seed=1, image_size_px=16), folder / "shards", image_size_px=16, workers=1, progress=False
    )
    return {
        "DIFFUSION_ART_RUN": str(folder / "logs" / "first"),
        "DIFFUSION_ART_LOGS": str(folder / "logs"),
        "DIFFUSION_ART_DATA": str(folder / "shards"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONPATH": str(NOTEBOOKS[0].parents[1]),
    }


def run_here(name: str) -> None:
    """The cells of a notebook one after the other, in this process."""
    cells = nbformat.read(NOTEBOOKS[0].parent / f"{name}.ipynb", as_version=4).cells
    names: dict[str, object] = {}
    with matplotlib.rc_context():
        try:
            for cell in cells:
                if cell.cell_type == "code":
                    exec(cell.source, names)
        finally:
            plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddim.Ancestral", "stochastic_heun.StochasticHeun", "consistency.Consistency"])
def test_ways_between_pictures_work_with_samplers_that_draw_noise_at_each_step(tmp_path, monkeypatch, sampler: str):
    config = {"model": MODEL_CONFIG, "sampler": {"_target_": f"diffusion_art.diffusion.samplers.{sampler}"}}
    write_checkpoint(tmp_path / "run" / "last.ckpt", toy_model(), config={**config, "prompts": ["red", "blue"]})
    monkeypatch.setenv("DIFFUSION_ART_RUN", str(tmp_path / "run" / "last.ckpt"))
    run_here("interpolate")
    assert (tmp_path / "run" / "interpolation.gif").is_file()


@contextmanager
def training_shown(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside the block the notebook's figure of a run's training is drawn."""
    monkeypatch.setenv("DIFFUSION_ART_RUN", str(checkpoint))
    plt.switch_backend("agg")
    names = {}
    with plt.rc_context():
        for source in (cell.source for cell in EXPLORED if cell.id in ("1", "2", "4")):
            exec(source, names)
        yield
    plt.close("all")


@pytest.mark.parametrize("columns", ["step,train/loss\n1,1.5\n", None], ids=["no validation", "no metrics"])
def test_a_run_without_validation_grids_or_metrics_is_looked_at_all_the_same(tmp_path, monkeypatch, columns):
    file = write_checkpoint(tmp_path / "checkpoints/last.ckpt", toy_model())
    if columns:
        (tmp_path / "metrics.csv").write_text(columns)
    with training_shown(file, monkeypatch):
        assert len(plt.gcf().axes[0].lines) == (1 if columns else 0)


def test_sample_grids_are_shown_whole_and_wide_enough_to_read(tmp_path, monkeypatch):
    file = write_checkpoint(tmp_path / "checkpoints/last.ckpt", toy_model())
    (tmp_path / "samples").mkdir()
    for step in (0, 6, 12):
        Image.new("RGB", (60, 80)).save(tmp_path / f"samples/step_{step:08}.png")
    with training_shown(file, monkeypatch):
        figure = plt.gcf()
        figure.canvas.draw()
        shown = figure.axes[1:]
        assert [axes.get_title(loc="left") for axes in shown] == ["grid after 6 steps", "grid after 12 steps"]
        assert [axes.images[0].get_size() for axes in shown] == [(80, 60)] * 2
        assert all(axes.get_window_extent().width > 330 for axes in shown)


@pytest.mark.parametrize("name", ["interpolate", "explore_checkpoint"])
def test_a_run_without_prompts_is_asked_for_captions(tmp_path, monkeypatch, name):
    config = {"model": MODEL_CONFIG, "sampler": SAMPLER_CONFIG}
    write_checkpoint(tmp_path / "last.ckpt", toy_model(), config=config)
    monkeypatch.setenv("DIFFUSION_ART_RUN", str(tmp_path / "last.ckpt"))
    with pytest.raises(UserError, match="has no prompts of its own: set CAPTIONS above"):
        run_here(name)


PAIR = {
    "_target_": "diffusion_art.models.text_pair.TextPair",
    "encoders": dict.fromkeys(("first", "second"), MODEL_CONFIG["text_encoder"]),
}


@pytest.mark.parametrize(("parts", "drawn"), [({}, 2), ({"text_encoder": PAIR}, 0)], ids=["short words", "no words"])
def test_where_the_model_looks_is_drawn_for_short_words_too_and_left_out_of_other_encoders(
    tmp_path, monkeypatch, capsys, parts, drawn
):
    monkeypatch.setenv("DIFFUSION_ART_RUN", str(checkpoint_of(tmp_path, parts, prompts=["a cat, a dog"])))
    plt.switch_backend("agg")
    names = {}
    with plt.rc_context():
        for source in (cell.source for cell in EXPLORED if cell.id in ("1", "2", "12", "13", "15")):
            exec(source, names)
    assert len(plt.get_fignums()) == drawn
    if drawn:
        figure = plt.figure(plt.get_fignums()[0])
        figure.canvas.draw()
        label = figure.axes[-1].yaxis.label.get_window_extent()
        assert 0 <= label.y0 < label.y1 <= figure.bbox.height, "the colour bar's label is cut"
    plt.close("all")
    assert ("TextPair does not tell which tokens make a word" in capsys.readouterr().out) == (drawn == 0)


@pytest.mark.slow
def test_they_run_on_a_small_bench_and_show_as_many_pictures_as_they_do_here(tmp_path, monkeypatch):
    """All in one process, each from an empty one's names: so the libraries are imported once."""
    for name, value in small_bench(tmp_path).items():
        monkeypatch.setenv(name, value)
    kept = {path.stem: nbformat.read(path, as_version=4) for path in NOTEBOOKS}
    assert sorted(kept) == ["compare_runs", "explore_checkpoint", "explore_data", "interpolate"]
    whole = nbformat.v4.new_notebook()
    for notebook in kept.values():
        whole.cells += [nbformat.v4.new_code_cell("%reset -f"), *deepcopy(notebook.cells)]
    NotebookClient(whole, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    start = 0
    for name, notebook in kept.items():
        cells = whole.cells[start + 1 : start + 1 + len(notebook.cells)]
        start += 1 + len(notebook.cells)
        seen, shown = (
            len(outputs(nbformat.v4.new_notebook(cells=each), mime="image/")) for each in (cells, notebook.cells)
        )
        assert seen == shown, name
    assert (tmp_path / "logs" / "first" / "interpolation.gif").read_bytes()[:3] == b"GIF"
    told = "\n".join(str(output) for output in outputs(whole))
    assert "optim.lr" in told  # what was changed between the runs
    assert "optim.betas" not in told
    assert "KID ↓ (judge, 64 pictures)" in told  # what came of it
    assert "0.2 ± 0.05" in told
