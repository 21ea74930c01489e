"""The device's noise, by the same code on a CPU: known answers, independence of the batch, and that it is normal."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_art.experiments.immiscible import Nearest
from diffusion_art.randomness import fold
from diffusion_art.training.noise import NOISE, TIMES, VAL_NOISE
from diffusion_art.training.philox import normal_at, philox

SHAPE = (3, 16, 16)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # of the authors' own test vectors, kat_vectors of Random123
        ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, (0xFFFFFFFF,) * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_the_generator_gives_its_authors_numbers(counter, key, words):
    found = philox(tuple(torch.tensor([word]) for word in counter), key)
    assert [int(word) for word in found] == words


def test_a_row_depends_on_its_position_only():
    places = torch.tensor([5, 2**31, 3 * 2**40 + 7, 0])
    together = normal_at(places, SHAPE, key=fold(1, NOISE))
    for row, place in zip(together, places):
        assert torch.equal(row, normal_at(place[None], SHAPE, key=fold(1, NOISE))[0])
    assert torch.equal(together.flip(0), normal_at(places.flip(0), SHAPE, key=fold(1, NOISE)))
    assert len({float(row.sum()) for row in together}) == len(places)
    odd = normal_at(places, (3, 1, 3), key=fold(1, NOISE))  # not a multiple of the four numbers of a counter
    assert torch.equal(odd.flatten(1), together.flatten(1)[:, :9])


def _ks(x: torch.Tensor) -> float:
    """The statistic of Kolmogorov and Smirnov against the unit normal, times the square root of the count."""
    x = x.double().flatten().sort().values
    share = torch.arange(1, len(x) + 1, dtype=torch.float64) / len(x)
    cdf = torch.special.ndtr(x)
    return float(torch.maximum((share - cdf).abs(), (cdf - share + 1 / len(x)).abs()).max()) * math.sqrt(len(x))


def test_the_noise_is_unit_normal():
    eps = normal_at(torch.arange(10_000, 10_512), SHAPE, key=fold(0, NOISE))
    x, n = eps.double().flatten(), eps.numel()
    for power, (moment, variance) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}.items():
        assert abs(float((x**power).mean()) - moment) < 4 * math.sqrt(variance / n)
    assert _ks(eps) < 1.63  # one true normal sample in a hundred is beyond
    assert 4.2 < float(x.abs().max()) < 6.8
    assert torch.isfinite(x).all()


def test_neighbours_in_any_direction_are_independent():
    eps = normal_at(torch.arange(512), SHAPE, key=fold(0, NOISE)).flatten(1).double()
    n = eps.numel()

    def independent(a: torch.Tensor, b: torch.Tensor) -> bool:
        means = torch.stack([(a * b).mean(), (a.square() * b.square()).mean() - 1])
        return bool((means.abs() < 4 * math.sqrt(8 / n)).all())

    for lag in (1, 2, 3, 4, 5, 16, 256):
        assert independent(eps[:, lag:], eps[:, :-lag])
    for lag in (1, 2, 8, 256):
        assert independent(eps[lag:], eps[:-lag])
    places = torch.arange(512)
    for other in (
        normal_at(places, SHAPE, key=fold(1, NOISE)),
        normal_at(places, SHAPE, key=fold(0, VAL_NOISE)),
        normal_at(places, SHAPE, key=fold(0, TIMES)),
        normal_at(places, SHAPE, key=fold(0, NOISE), draw=1),
        normal_at(places + 2**32, SHAPE, key=fold(0, NOISE)),
    ):
        assert independent(eps, other.flatten(1).double())


def test_the_nearest_of_k_draws_is_taken_for_all_rows_at_once():
    places, pictures = torch.arange(40, 56), torch.rand(16, *SHAPE) * 2 - 1
    eps = Nearest(candidates=5)._at_once(pictures, places, seed=1)
    drawn = torch.stack([normal_at(places, SHAPE, key=fold(1, NOISE), draw=draw) for draw in range(5)])
    nearest = (drawn - pictures).square().flatten(2).sum(2).argmin(0)
    assert torch.equal(eps, drawn[nearest, torch.arange(16)])
    assert torch.equal(Nearest(candidates=1)._at_once(pictures, places, seed=1), drawn[0])
