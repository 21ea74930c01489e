"""How figures look in notebooks and reports: quiet axes, one set of colours, paper white."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from jaxtyping import Float
from matplotlib.axes import Axes

INK, SOFT, GRID = "#2b2b2e", "#66666e", "#dcdce0"
COLOURS = ("#2f5aa8", "#c8553d", "#2f8577", "#a8700f", "#7d5ba6", "#4f772d", "#a8326f", "#5b6770")
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "figure.dpi": 100,
    "savefig.bbox": "tight",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def use_style() -> None:
    """From now on matplotlib draws so. In a notebook, figures and pictures are kept as JPEG, a fifth of the bytes."""
    matplotlib.rcParams.update(STYLE)
    from IPython import get_ipython  # only notebooks have it

    shell: Any = get_ipython()
    if shell is not None:
        shell.run_line_magic("config", "InlineBackend.figure_formats = ['jpeg']")
        shell.display_formatter.formatters["image/png"].enabled = False


def bars(axes: Axes, counts: Mapping[str, float], *, title: str, unit: str, colour: str = COLOURS[0]) -> None:
    """A horizontal bar for each name, the first on top, its number beside it."""
    names = [name if len(name) <= 28 else f"{name[:27]}…" for name in counts]
    drawn = axes.barh(range(len(names)), list(counts.values()), color=colour, height=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.bar_label(drawn, labels=[f"{value:,.4g}" for value in counts.values()], padding=3, fontsize=8, color=SOFT)
    axes.margins(x=0.14)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set(title=title, xlabel=unit)


def picture(axes: Axes, pixels: np.ndarray, *, title: str = "") -> None:
    """A picture [h w 3] of 8 bits without axes."""
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(title, loc="center", fontsize=9)
    axes.axis("off")


def map_over(
    axes: Axes, pixels: np.ndarray, values: Float[np.ndarray, "y x"], *, title: str = "", top: float = 2.5
) -> Any:
    """A map of another size over a grey picture, 0 to `top` from dark to bright. Gives what a colour bar is made of."""
    height, width = pixels.shape[:2]
    axes.imshow(pixels.mean(-1), cmap="gray", vmin=-120, vmax=360)
    drawn = axes.imshow(
        values, cmap="magma", vmin=0, vmax=top, alpha=0.68, interpolation="bilinear",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )  # fmt: skip
    axes.set_title(title, loc="center", fontsize=9)
    axes.axis("off")
    return drawn
