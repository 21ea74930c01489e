"""What a sweep folder shows: `report.md` with its table and pictures, rewritten after each trial."""

from __future__ import annotations

from pathlib import Path

import optuna
from PIL import Image, ImageOps

from diffusion_art.files import written
from diffusion_art.sheets import PAPER, picture_sheet, write_png
from diffusion_art.sweeps.plots import importances, plot_importances, plot_parallel
from diffusion_art.sweeps.study import COMMAND, finite, open_study
from diffusion_art.sweeps.table import Row, Table, markdown, table_of, write_csv

TILE_PX = 400  # side of a trial's grid in the contact sheet
COLUMNS = 4


def write_report(folder: Path) -> None:
    """`trials.csv`, `report.md`, `contact_sheet.png`, `parallel_coordinates.png` and `importance.png` of a sweep."""
    study = open_study(folder)
    table = table_of(study)
    if not table.rows:
        return
    write_csv(table, folder / "trials.csv")
    pictures = [*_plots(study, table, folder), *_contact_sheet(table, folder)]
    with written(folder / "report.md") as partial:
        partial.write_text(_text(study, table, pictures, folder), encoding="utf-8")


def _plots(study: optuna.Study, table: Table, folder: Path) -> list[str]:
    drawn = []
    if any(finite(row.value) for row in table.rows):
        plot_parallel(table, folder / "parallel_coordinates.png")
        drawn.append("parallel_coordinates.png")
    if shares := importances(study):
        complete = sum(row.state == "complete" for row in table.rows)
        plot_importances(shares, folder / "importance.png", metric=table.metric, trials=complete)
        drawn.append("importance.png")
    return drawn


def _contact_sheet(table: Table, folder: Path) -> list[str]:
    """The last sample grid of each trial under its overrides, the best trial first."""
    shown = [(row, grid) for row in table.ranked if (grid := _last_grid(folder / str(row.number)))]
    if not shown:
        return []
    grids = _alike([path for _, path in shown])
    labels = [_label(row, table.metric) for row, _ in shown]
    title = f"{folder.name}: the last samples of {len(shown)} trials, the best first"
    write_png(
        picture_sheet(grids, labels, columns=min(COLUMNS, len(grids)), title=title), folder / "contact_sheet.png", {}
    )
    return ["contact_sheet.png"]


def _last_grid(run: Path) -> Path | None:
    return max((run / "samples").glob("step_*.png"), default=None)


def _alike(paths: list[Path]) -> list[Image.Image]:
    """The grids, none larger than a tile, each on paper of the same size."""
    grids = []
    for path in paths:
        with Image.open(path) as grid:
            grids.append(ImageOps.contain(grid.convert("RGB"), (TILE_PX, TILE_PX), Image.Resampling.LANCZOS))
    size = (max(grid.width for grid in grids), max(grid.height for grid in grids))
    return [ImageOps.pad(grid, size, color=PAPER, centering=(0, 0)) for grid in grids]


def _label(row: Row, metric: str) -> str:
    value = "" if row.value is None else f"{metric} {row.value:.4g}, "
    steps = "" if row.steps is None else f" after {row.steps:,} steps"
    return f"{'best: ' if row.best else ''}{row.label} ({value}{row.state}{steps})"


def _text(study: optuna.Study, table: Table, pictures: list[str], folder: Path) -> str:
    counts = {
        state: sum(row.state == state for row in table.rows) for state in dict.fromkeys(r.state for r in table.rows)
    }
    lines = [
        f"# {folder.parent.name} / {folder.name}",
        "",
        f"{len(table.rows)} trials ({', '.join(f'{count} {state}' for state, count in counts.items())}); "
        f"`{table.metric}` is {table.direction}d. The value of a pruned trial is that of its last validation.",
        "",
        "```",
        *study.user_attrs.get(COMMAND, []),
        "```",
        "",
        markdown(table),
    ]
    for picture in pictures:
        lines += ["", f"![{picture.removesuffix('.png').replace('_', ' ')}]({picture})"]
    return "\n".join(lines) + "\n"
