from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from diffusion_art.reports.figures import STYLE, bars, map_over, use_style


def test_bars_come_in_order_with_their_numbers_and_long_names_cut():
    axes = Figure().add_subplot()
    bars(axes, {"a" * 40: 1200, "b": 3}, title="names", unit="pictures")
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["a" * 27 + "…", "b"]
    assert axes.yaxis_inverted()  # the first is on top
    assert {text.get_text() for text in axes.texts} == {"1,200", "3"}
    assert axes.get_xlabel() == "pictures"


def test_a_map_of_another_size_covers_the_whole_picture():
    axes = Figure().add_subplot()
    map_over(axes, np.zeros((16, 24, 3), np.uint8), np.ones((4, 6)), title="word")
    grey, over = axes.images
    assert tuple(over.get_extent()) == tuple(grey.get_extent()) == (-0.5, 23.5, 15.5, -0.5)
    assert over.get_clim() == (0, 2.5)


def test_the_style_is_matplotlibs_from_then_on():
    with matplotlib.rc_context():
        use_style()
        assert matplotlib.rcParams["grid.color"] == STYLE["grid.color"]
