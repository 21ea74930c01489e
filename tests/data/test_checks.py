"""What is said of a stream before a training begins with it."""

from __future__ import annotations

import logging

import pytest

from diffusion_art.data.checks import check_buckets
from diffusion_art.streaming.wire import StreamInfo


@pytest.mark.parametrize(("small", "end"), [(5, "160x96: 5)"), (7, "160x96: 5 and 2 more)")])
def test_small_buckets_are_counted_and_five_of_them_named(caplog, small, end):
    counts = {f"{96 + 16 * place}x96": place + 1 for place in range(small)} | {"256x256": 100}
    info = StreamInfo("toy", {"train": 200}, "digest", 256, None, buckets={"train": counts})
    with caplog.at_level(logging.WARNING):
        check_buckets(info, sizes_px=[256], global_batch_size=32)
    assert f"{small} of {small + 1} buckets have fewer training pictures than a batch of 32" in caplog.text
    assert end in caplog.text
