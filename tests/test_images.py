from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_art.images import film_strip, grid, save_grid, to_gif, to_png
from diffusion_art.sheets import nice_columns, read_metadata, wrap
from diffusion_art.tensors import to_uint8


def test_a_png_keeps_pixels_and_story(tmp_path):
    image = torch.rand(3, 8, 8) * 2 - 1
    told = {"prompt": "Größe → 漢字\nsecond line", "seed": 7, "sampler": {"name": "ddim", "eta": 0.5}}
    path = to_png(image, tmp_path / "deep" / "a.png", told)
    with Image.open(path) as picture:
        assert np.array_equal(np.asarray(picture), to_uint8(image))
    assert read_metadata(path) == {
        "prompt": told["prompt"],
        "seed": "7",
        "sampler": '{"name": "ddim", "eta": 0.5}',
    }
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]  # nothing half-written beside it


def test_tiles_stand_in_rows_enlarged_without_smoothing():
    images = torch.full((5, 3, 4, 4), -1.0)
    images[4] = 1.0
    sheet = np.asarray(grid(images, ["", "b", "c", "d", "e"], columns=2, title="step 5"))
    tile = 144
    assert sheet.shape[1] == 2 * tile + 3 * 8
    dark = (sheet == 0).all(-1)
    assert dark.sum() >= 4 * tile * tile  # four whole black tiles; ink is not quite black
    assert dark[:, 8].sum() == 2 * tile  # in the first column two of them, over a white one


def test_captions_are_painted_below():
    plain, told = (np.asarray(grid(torch.zeros(1, 3, 64, 64), [caption])) for caption in ("", "a red house"))
    assert plain.shape == told.shape
    assert not np.array_equal(plain[160:], told[160:])


def test_a_picture_larger_than_a_tile_keeps_its_size():
    assert grid(torch.zeros(1, 3, 200, 200), ["a"]).width == 200 + 16


def test_as_many_captions_as_pictures():
    with pytest.raises(ValueError, match="2 pictures came with 1"):
        grid(torch.zeros(2, 3, 4, 4), ["a"])


def test_a_saved_grid_holds_its_captions_as_text(tmp_path):
    path = save_grid(torch.zeros(2, 3, 4, 4), ["ä", "b"], tmp_path / "grid.png", metadata={"seeds": [1, 2]})
    assert read_metadata(path) == {"captions": '["ä", "b"]', "seeds": "[1, 2]"}


def test_a_film_strip_has_a_row_for_each_picture_and_a_column_for_each_frame():
    frames = [torch.full((2, 3, 144, 144), value) for value in (-1.0, 0.0, 1.0)]
    strip = film_strip(frames, ["t = 1", "t = 0.5", "t = 0"], title="noise to picture")
    assert strip.width == 3 * 144 + 4 * 8
    assert strip.height > 2 * 144
    with pytest.raises(ValueError, match="3 frames came with 1"):
        film_strip(frames, ["t = 1"])


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (2, 2), (4, 2), (8, 4), (12, 4), (16, 4), (15, 5), (13, 4), (64, 8), (100, 8)]
)
def test_grids_are_rather_wide_than_tall(count, columns):
    assert nice_columns(count) == columns


def test_wrapped_text_fits_and_says_where_it_was_cut():
    from diffusion_art.sheets import _width

    text = "Piet Mondrian / Composition in Red and Blue / De Stijl / abstract / 1921"
    whole = wrap(text, width_px=144, max_lines=9)
    assert " ".join(whole) == text
    assert all(_width(line, 12) <= 144 for line in whole)
    cut = wrap(text, width_px=144, max_lines=2)
    assert cut[0] == whole[0]
    assert len(cut) == 2
    assert cut[1].endswith("…")
    assert _width(cut[1], 12) <= 144


@pytest.mark.parametrize("text", ["x" * 10_000, "漢字" * 500, "word " * 3000])
def test_wrapping_survives_any_prompt(text):
    from diffusion_art.sheets import _width

    lines = wrap(text, width_px=100, max_lines=4)
    assert len(lines) == 4
    assert all(_width(line, 12) <= 100 for line in lines)


def test_nothing_wraps_to_nothing():
    assert wrap("  ", width_px=100, max_lines=4) == []


def test_a_gif_plays_there_and_back(tmp_path):
    frames = torch.stack([torch.full((3, 16, 16), value) for value in (-1.0, 0.0, 0.5, 1.0)])
    path = to_gif(frames, tmp_path / "deep" / "a.gif", frame_s=0.2)
    with Image.open(path) as film:
        assert film.size == (144, 144)
        seen = []
        for place in range(film.n_frames):
            film.seek(place)
            seen.append((film.convert("RGB").getpixel((70, 70))[0], film.info["duration"]))
        assert film.info["loop"] == 0
    assert [duration for _, duration in seen] == [500, 200, 200, 500, 200, 200]
    assert [value for value, _ in seen] == pytest.approx([0, 128, 191, 255, 191, 128], abs=2)


def test_pictures_of_several_sizes_stand_on_their_rows_line():
    shapes = [(16, 16), (12, 20), (20, 12), (16, 16)]
    images = [torch.full((3, height, width), -1.0) for width, height in shapes]
    pixels = np.asarray(grid(images, ["a", "b", "c", "d"], columns=2))
    black = (pixels[:, :, :3] == 0).all(axis=2)
    tiles = [width * height * (-(-144 // round((width * height) ** 0.5))) ** 2 for width, height in shapes]
    assert black.sum() == sum(tiles)
