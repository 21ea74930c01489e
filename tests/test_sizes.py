"""The grid of buckets, and which of them a picture gets."""

from __future__ import annotations

import pytest

from diffusion_art.errors import UserError
from diffusion_art.sizes import bucket_sizes, cropped, nearest, refuse_fractions


@pytest.mark.parametrize(("side", "step", "ratio"), [(128, 8, 3.0), (128, 16, 2.0), (64, 8, 4.0), (16, 4, 3.0)])
def test_buckets_are_of_about_one_area_and_come_in_pairs(side, step, ratio):
    sizes = bucket_sizes(side, step_px=step, max_ratio=ratio)
    assert (side, side) in sizes
    assert {(height, width) for width, height in sizes} == set(sizes)
    for width, height in sizes:
        assert width % step == height % step == 0
        assert 0.75 * side**2 <= width * height <= side**2
        assert max(width, height) <= ratio * min(width, height)


def test_a_picture_loses_what_its_bucket_cannot_hold():
    assert cropped(300, 200, (150, 100)) == 0
    assert cropped(400, 200, (100, 100)) == pytest.approx(0.5)
    assert cropped(200, 400, (100, 100)) == pytest.approx(0.5)
    sizes = bucket_sizes(128, step_px=8)
    assert nearest(1000, 1000, sizes) == (128, 128)
    assert nearest(4000, 3000, sizes)[0] > nearest(4000, 3000, sizes)[1]
    assert max(cropped(1000 + 20 * n, 1000, nearest(1000 + 20 * n, 1000, sizes)) for n in range(90)) < 0.1


def test_what_has_no_square_or_no_whole_pixels_is_refused():
    with pytest.raises(UserError, match="no multiple of bucket_step_px=12"):
        bucket_sizes(64, step_px=12)
    refuse_fractions({"train": {"8x24": 1}}, stored_px=16, asked_px=8)
    with pytest.raises(UserError, match=r"12x20 would have sides of 4\.5 and 7\.5 px"):
        refuse_fractions({"train": {"12x20": 1}}, stored_px=16, asked_px=6)
