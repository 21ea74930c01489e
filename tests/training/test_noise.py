"""Random numbers of a step do not depend on ranks, batches or what ran before."""

from __future__ import annotations

from functools import partial

import torch

from diffusion_art.diffusion.objective import LogitNormal
from diffusion_art.randomness import fold
from diffusion_art.tensors import Batch
from diffusion_art.training.noise import draw_step, noise_at, spread_times


def _batch(number: int, first: int, count: int, batch_size: int) -> Batch:
    positions = list(range(number * batch_size + first, number * batch_size + first + count))
    return Batch(torch.zeros(count, 3, 4, 4), [""] * count, [""] * count, positions, number + 1)


def test_two_ranks_draw_the_halves_of_what_one_draws():
    def draw(first, count):
        return draw_step(
            _batch(5, first, count, 8),
            seed=1,
            global_batch_size=8,
            times=LogitNormal(),
            caption_dropout=0.5,
            noise=partial(noise_at, shape=(3, 4, 4), seed=1),
        )

    whole, left, right = draw(0, 8), draw(0, 4), draw(4, 4)
    for name in ("t", "eps", "dropped"):
        halves = torch.cat([getattr(left, name), getattr(right, name)])
        assert torch.equal(getattr(whole, name), halves)


def test_draws_do_not_touch_or_read_the_global_generator():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = noise_at([0, 1], (2, 2, 2), seed=0)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(4)
    assert torch.equal(first, noise_at([0, 1], (2, 2, 2), seed=0))


def test_noise_is_normal_and_different_everywhere():
    eps = noise_at(range(64), (3, 16, 16), seed=0)
    assert abs(eps.mean()) < 0.02
    assert abs(eps.std() - 1) < 0.02
    correlation = torch.corrcoef(eps.flatten(1)) - torch.eye(64)
    assert correlation.abs().max() < 0.2
    assert not torch.equal(eps, noise_at(range(64), (3, 16, 16), seed=1))


def test_caption_dropout_has_the_asked_rate():
    drops = torch.cat(
        [
            draw_step(
                _batch(k, 0, 64, 64),
                seed=0,
                global_batch_size=64,
                times=LogitNormal(),
                caption_dropout=0.1,
                noise=partial(noise_at, shape=(1, 1, 1), seed=0),
            ).dropped
            for k in range(100)
        ]
    )
    assert abs(drops.float().mean() - 0.1) < 0.015


def test_fold_separates_neighbours_in_its_low_bits():
    seeds = {fold(0, stream, n) & 0xFFFFFFFF for stream in range(3) for n in range(3000)}
    assert len(seeds) >= 8999
    assert fold(1, 2) != fold(2, 1)


def test_validation_times_cover_the_interval_evenly():
    t = spread_times(range(90))
    assert torch.histc(t, 9, 0, 1).min() >= 9
