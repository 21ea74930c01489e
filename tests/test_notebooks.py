"""Notebooks are stripped, and run from top to bottom on a small checkpoint."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.fakes import toy_model, toy_run

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_it_is_valid_and_stripped(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_it_opens_with_the_question_it_answers(notebook):
    assert notebook.cells[0].cell_type == "markdown"
    assert "?" in notebook.cells[0].source.splitlines()[0]


def test_it_defines_no_models(notebook):
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "nn.Module" not in source


@pytest.mark.slow
def test_explore_checkpoint_runs_and_shows_pictures(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    run = toy_run(tmp_path / "toy", toy_model())
    monkeypatch.setenv("DIFFUSION_ART_RUN", str(run))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS[0].parents[1]))
    notebook = nbformat.read(NOTEBOOKS[0].parent / "explore_checkpoint.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    shown = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(shown) == 7  # losses, a grid, samples, guidance by seed, one word, two film strips
