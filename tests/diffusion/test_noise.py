from __future__ import annotations

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from diffusion_art.diffusion.samplers import NoiseSource, seeds_from
from diffusion_art.diffusion.samplers.base import per_image_generators, unit_noise
from diffusion_art.errors import UserError

SHAPE = (3, 8, 8)


def test_row_7_is_the_same_alone_and_in_any_batch():
    batch = NoiseSource(list(range(100, 110)), SHAPE)
    alone = NoiseSource([107], SHAPE)
    assert torch.equal(batch.x_T()[7], alone.x_T()[0])
    for step in range(3):
        assert torch.equal(batch(step)[7], alone(step)[0])


def test_noise_is_a_pure_function_of_seed_and_step():
    source = NoiseSource([1, 2], SHAPE)
    x_T, steps = source.x_T(), [source(step) for step in range(4)]
    assert torch.equal(source(2), steps[2])
    assert torch.equal(source.x_T(), x_T)
    assert torch.equal(NoiseSource([1, 2], SHAPE)(3), steps[3])
    every = torch.stack([x_T, *steps]).flatten(0, 1)
    assert len(every.flatten(1).unique(dim=0)) == len(every)


def test_noise_is_unit_normal_and_blind_to_global_state():
    torch.manual_seed(0)
    first = NoiseSource([5], (3, 64, 64)).x_T()
    torch.manual_seed(1)
    assert torch.equal(first, NoiseSource([5], (3, 64, 64)).x_T())
    assert first.mean().abs() < 0.03
    assert first.std().item() == pytest.approx(1, abs=0.03)


def test_equal_seeds_mean_equal_noise_in_diffusers():
    source = NoiseSource([4, 9], SHAPE)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in (4, 9)]
    for ours in (source.x_T(), source(0), source(1)):
        assert torch.equal(ours, randn_tensor((2, *SHAPE), generator=generators))


def test_generators_go_on_where_they_stand():
    generators = per_image_generators([3])
    first, second = unit_noise(generators, SHAPE), unit_noise(generators, SHAPE)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(UserError, match=f"seed {seed} is out of range"):
        NoiseSource([0, seed], SHAPE)


def test_of_a_large_seed_the_part_counts_that_torch_reads():
    assert seeds_from(2**64 - 1, 2) == [2**32 - 1, 0]
    assert seeds_from(7 + 2**40, 1) == [7]
    any_seed, next_seed = seeds_from(-1, 2)
    assert next_seed == any_seed + 1
    for seed in (-2, 2**64):
        with pytest.raises(UserError, match=f"seed {seed} is out of range"):
            seeds_from(seed, 1)


def test_the_seed_limit_is_torchs_own():
    """Why larger seeds are cut: they would silently repeat smaller ones."""
    small, large = (torch.randn(4, generator=torch.Generator().manual_seed(s)) for s in (7, 7 + 2**32))
    assert torch.equal(small, large)
