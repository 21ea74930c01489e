import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_art.errors import UserError
from diffusion_art.shards.order import EpochOrder, SequentialOrder, epoch_order, rank_slice, spans

sizes = st.integers(1, 3000)


def order(samples: int, *, seed: int = 0, epoch: int = 0, split: str = "train", digest: str = "d") -> EpochOrder:
    return EpochOrder(samples, seed=seed, epoch=epoch, split=split, digest=digest)


@given(sizes, st.integers(-(2**62), 2**62), st.integers(0, 2**40))
def test_every_epoch_holds_each_sample_exactly_once(samples: int, seed: int, epoch: int):
    places = order(samples, seed=seed, epoch=epoch)(np.arange(samples))
    assert np.array_equal(np.sort(places), np.arange(samples))


@given(sizes, st.data())
def test_a_place_does_not_depend_on_what_else_is_asked(samples: int, data: st.DataObject):
    whole = order(samples)(np.arange(samples))
    asked = data.draw(st.lists(st.integers(0, samples - 1), max_size=20))
    assert np.array_equal(order(samples)(np.array(asked, dtype=np.int64)), whole[asked])


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"split": "val"}, {"digest": "e"}])
def test_order_depends_on_seed_epoch_split_and_digest(other: dict):
    a, b = order(1000)(np.arange(1000)), order(1000, **other)(np.arange(1000))
    assert np.mean(a == b) < 0.01


@pytest.mark.parametrize("samples", [2, 7, 16, 97])
def test_every_sample_is_equally_likely_at_every_place(samples: int):
    epochs = 2000
    counts = np.zeros((samples, samples))
    for epoch in range(epochs):
        counts[np.arange(samples), order(samples, epoch=epoch)(np.arange(samples))] += 1
    expected, freedom = epochs / samples, (samples - 1) ** 2
    chi_squared = np.sum((counts - expected) ** 2 / expected)
    assert chi_squared < freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("samples", [8192, 103_250])
def test_neighbours_are_torn_apart(samples: int):
    places = order(samples)(np.arange(samples)).astype(float)
    bound = 5 / np.sqrt(samples)
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < bound
    assert abs(np.corrcoef(places, np.arange(samples))[0, 1]) < bound
    assert np.mean(np.abs(np.diff(places))) == pytest.approx(samples / 3, rel=0.05)


def test_a_hundred_million_samples_take_no_memory():
    samples = 100_000_000
    places = order(samples)(np.array([0, 1, samples - 1]))
    assert len(set(places.tolist())) == 3
    assert all(0 <= place < samples for place in places)


def test_the_order_never_changes():
    """Checkpoints hold positions in it: a new formula would show a resumed run some pictures twice."""
    found = EpochOrder(1000, seed=7, epoch=3, split="train", digest="00ff")(np.arange(8))
    assert found.tolist() == [340, 802, 333, 741, 484, 911, 518, 497]


def test_places_outside_are_refused():
    for places in ([-1], [10], [0, 11]):
        with pytest.raises(ValueError, match=r"\[0, 10\)"):
            order(10)(np.array(places))
    with pytest.raises(ValueError, match="needs"):
        order(0)


def test_without_a_seed_the_order_is_the_index():
    sequential = epoch_order(10, seed=None, epoch=3, split="val", digest="d")
    assert isinstance(sequential, SequentialOrder)
    assert sequential(np.arange(4, 7)).tolist() == [4, 5, 6]


@given(st.integers(1, 50), st.integers(0, 500), st.integers(0, 200))
def test_spans_are_the_endless_order_by_epochs(samples: int, start: int, count: int):
    parts = spans(samples, start, count)
    positions = [epoch * samples + place for epoch, first, stop in parts for place in range(first, stop)]
    assert positions == list(range(start, start + count))
    assert all(0 <= first < stop <= samples for _, first, stop in parts)


@given(st.integers(1, 8), st.integers(1, 16), st.integers(0, 100))
def test_ranks_share_each_global_batch_equally_and_wholly(world: int, share: int, batch: int):
    size = world * share
    slices = [rank_slice(batch, size, rank, world) for rank in range(world)]
    positions = [position for start, stop in slices for position in range(start, stop)]
    assert positions == list(range(batch * size, (batch + 1) * size))
    assert {stop - start for start, stop in slices} == {share}


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match=r"63 pictures.*2 processes.*multiple of 2"):
        rank_slice(0, 63, 0, 2)
    with pytest.raises(ValueError, match="rank 2"):
        rank_slice(0, 64, 2, 2)
