"""Several shard sets in one stream: exact shares, each component in its own order, nothing lost, nothing twice."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_art.errors import UserError
from diffusion_art.shards.leaks import refuse_leaks
from diffusion_art.shards.mixed_order import BLOCK_POSITIONS, InterleavedOrder, MixedOrder, quotas_of
from diffusion_art.shards.mixture import Mixture, open_shards
from diffusion_art.shards.order import EpochOrder, OrderMemo, rank_slice, spans
from diffusion_art.shards.places import arguments_of, components_of, spec_of_arguments
from diffusion_art.shards.reader import ShardSet, ShardWriter, write_manifest
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.run import main
from tests.shards.toy import toy_image, write_toy

SIZES, WEIGHTS = {"a": 100, "b": 37, "c": 300}, (0.6, 0.3, 0.1)
weights_of = st.lists(st.floats(0.05, 1.0), min_size=2, max_size=5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three toys of different pictures, the last one without a validation split."""
    root = tmp_path_factory.mktemp("mixed")
    for seed, (name, train) in enumerate(SIZES.items()):
        write_toy(root / name, train=train, val=(10, 4, 0)[seed], seed=seed)
    return [root / name for name in SIZES]


@pytest.fixture(scope="module")
def spec(folders: list[Path]) -> list[dict]:
    return [{"path": str(folder), "weight": weight} for folder, weight in zip(folders, WEIGHTS)]


@pytest.fixture(scope="module")
def mixture(spec: list[dict]) -> Mixture:
    shards = open_shards(spec)
    assert isinstance(shards, Mixture)
    return shards


def endless(mixture: Mixture, start: int, count: int, *, seed: int = 0) -> np.ndarray:
    """Samples at endless positions of the training split, place by place of the epochs they lie in."""
    parts = spans(mixture.splits["train"], start, count)
    return np.concatenate([mixture.samples("train", seed, epoch, first, stop) for epoch, first, stop in parts])


def owners(mixture: Mixture, samples: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum([part.splits["train"] for part in mixture.components]), samples, side="right")


# ---------------------------------------------------------------------- the law


@given(weights_of, st.integers(-(2**40), 2**40), st.integers(0, 2**60))
def test_every_block_holds_exactly_each_share(weights: list[float], seed: int, block: int):
    quotas, sizes = quotas_of(weights), [700 + i for i in range(len(weights))]
    epoch, place = divmod(block * BLOCK_POSITIONS, sum(sizes))
    found = []
    for later, start, stop in spans(sum(sizes), place, BLOCK_POSITIONS):
        digests = [str(i) for i in range(len(sizes))]
        order = MixedOrder(sizes, quotas, seed=seed, epoch=epoch + later, split="s", digests=digests, digest="d")
        found.append(order(np.arange(start, stop)))
    owner = np.searchsorted(np.cumsum(sizes), np.concatenate(found), side="right")
    assert np.bincount(owner, minlength=len(sizes)).tolist() == list(quotas)


def test_each_component_shows_its_own_endless_order_without_loss_or_repeat(mixture: Mixture):
    samples = endless(mixture, 0, 7 * BLOCK_POSITIONS)
    offset = 0
    for number, part in enumerate(mixture.components):
        size = part.splits["train"]
        own = samples[owners(mixture, samples) == number] - offset
        alone = [
            EpochOrder(size, seed=0, epoch=epoch, split="train", digest=part.digest)(np.arange(start, stop))
            for epoch, start, stop in spans(size, 0, len(own))
        ]
        assert len(own) == 7 * BLOCK_POSITIONS * WEIGHTS[number]
        assert np.array_equal(own, np.concatenate(alone))
        for epoch in range(len(own) // size):
            assert len(set(own[epoch * size : (epoch + 1) * size])) == size
        offset += size


@given(st.lists(st.integers(0, 2 * 10**9), min_size=1, max_size=20))
def test_a_place_does_not_depend_on_what_else_is_asked(places: list[int]):
    sizes, quotas = (10**9, 5 * 10**8, 5 * 10**8 + 1), quotas_of(WEIGHTS)
    order = MixedOrder(sizes, quotas, seed=3, epoch=10**9, split="train", digests="abc", digest="d")
    assert order(np.array(places)).tolist() == [int(order(np.array([place]))[0]) for place in places]


def test_the_mixed_order_never_changes():
    """Checkpoints hold positions in it: a new formula would show a resumed run some pictures twice."""
    order = MixedOrder((1000, 500), (700, 300), seed=7, epoch=3, split="train", digests=("00ff", "01"), digest="02")
    assert order(np.arange(8)).tolist() == [372, 935, 1214, 730, 1405, 389, 161, 1109]
    assert order(np.arange(1496, 1500)).tolist() == [1322, 1004, 1336, 285]


def test_shares_are_shuffled_within_a_block(mixture: Mixture):
    one, other = (owners(mixture, endless(mixture, k * BLOCK_POSITIONS, BLOCK_POSITIONS)) for k in (0, 1))
    assert 0.3 < np.mean(one == other) < 0.6  # 0.46 for two independent shuffles of these shares
    longest = max(b - a for a, b in pairwise(np.flatnonzero(np.diff(one))))
    assert longest < 40
    another_seed = owners(mixture, endless(mixture, 0, BLOCK_POSITIONS, seed=1))
    assert np.mean(one == another_seed) < 0.6


@given(weights_of, st.integers(1, 5000))
def test_quotas_are_the_largest_remainders(weights: list[float], total: int):
    quotas, exact = quotas_of(weights, total=total), [total * w / sum(weights) for w in weights]
    assert sum(quotas) == total
    assert all(abs(quota - share) < 1 + 1e-6 for quota, share in zip(quotas, exact))
    up = [share % 1 for quota, share in zip(quotas, exact) if quota > share]
    down = [share % 1 for quota, share in zip(quotas, exact) if quota < share]
    assert min(up, default=1.0) >= max(down, default=0.0) - 1e-6
    assert quotas_of([1, 1, 1], total=10) == (4, 3, 3)
    assert quotas_of([1e-9, 0, 1, 1], total=10, least=1) == (1, 0, 4, 5)


def test_without_weights_every_sample_comes_once_per_epoch(folders: list[Path]):
    pool = open_shards(folders)
    size = pool.splits["train"]
    assert size == sum(SIZES.values())
    epochs = [pool.samples("train", 5, epoch, 0, size) for epoch in range(3)]
    for samples in epochs:
        assert np.array_equal(np.sort(samples), np.arange(size))
    assert np.mean(epochs[0] == epochs[1]) < 0.05


@given(st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any))
def test_validation_is_interleaved_in_proportion_each_component_in_its_order(sizes: list[int]):
    order, total = InterleavedOrder(sizes), sum(sizes)
    samples = order(np.arange(total))
    assert np.array_equal(np.sort(samples), np.arange(total))
    offsets = np.cumsum([0, *sizes])
    for number, size in enumerate(sizes):
        mine = (offsets[number] <= samples) & (samples < offsets[number + 1])
        assert np.array_equal(samples[mine], np.arange(offsets[number], offsets[number + 1]))
        assert np.abs(np.cumsum(mine) - np.arange(1, total + 1) * size / total).max() < len(sizes)
    asked = np.arange(total)[::-2]
    assert np.array_equal(order(asked), samples[asked])


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (4090, 4100), (4096, 8192), (100, 9999), (9999, 10_000)])
def test_what_is_remembered_is_what_the_order_says(start: int, stop: int):
    def order(split: str, seed: int | None, epoch: int) -> EpochOrder:
        return EpochOrder(10_000, seed=seed or 0, epoch=epoch, split=split, digest="d")

    memo = OrderMemo(order)
    for _ in range(2):
        for epoch in (0, 2**62):
            found = memo.samples("train", 1, epoch, start, stop)
            assert np.array_equal(found, order("train", 1, epoch)(np.arange(start, stop)))
    with pytest.raises(ValueError, match="read-only"):
        memo.samples("train", 1, 0, 0, 1)[0] = 0


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_see_the_same_global_order(spec: list[dict], world: int):
    reader = ShardReader(spec)
    numbers = range(1_000_000 // 64, 1_000_000 // 64 + 20)

    def keys(rank: int, world: int) -> list[list[str]]:
        requests = [ReadRequest("train", 0, *rank_slice(k, 64, rank, world)) for k in numbers]
        return [[sample.key for sample in samples] for samples in reader.read(requests)]

    shares = [keys(rank, world) for rank in range(world)]
    assert [[key for share in batch for key in share] for batch in zip(*shares)] == keys(0, 1)


# ---------------------------------------------------------------------- reading


def test_a_mixture_reads_as_its_components_do(mixture: Mixture):
    assert (mixture.name, mixture.image_size_px, mixture.caption_template) == ("toy-0 + toy-1 + toy-2", 32, "{title}")
    assert mixture.splits == {"train": 437, "val": 14}
    assert mixture.shares("train") == list(WEIGHTS)
    for split, first in (("train", [0, 100, 137]), ("val", [0, 10, 14])):
        places = np.random.default_rng(0).permutation(mixture.splits[split])
        mixture.prefetch(split, places)
        keys, captions, images = mixture.views(split, places)
        for place, key, caption, image in zip(places.tolist(), keys.tolist(), captions, images):
            number = int(np.searchsorted(first, place, side="right")) - 1
            sample = mixture.components[number].read(split, place - first[number])
            assert caption is not None
            assert image is not None
            assert (f"{key:016x}", bytes(image), str(caption, "utf-8")) == (sample.key, sample.image, sample.caption)
            assert mixture.captions(split, place) == (sample.caption,)
    with pytest.raises(IndexError, match=r"0\.\.436, not 437"):
        mixture.captions("train", 437)


def test_the_stream_of_a_mixture_is_the_pure_function(spec: list[dict], mixture: Mixture):
    positions = 2 * mixture.splits["train"] + 50
    requests = [ReadRequest("train", 3, start, min(start + 64, positions)) for start in range(0, positions, 64)]
    requests.append(ReadRequest("val", None, 0, 14))
    keys = {split: mixture.views(split, np.arange(samples))[0] for split, samples in mixture.splits.items()}
    expected = [f"{keys['train'][i]:016x}" for i in endless(mixture, 0, positions, seed=3)]
    with ServerProcess(spec) as server:
        client = StreamClient(server.url)
        assert client.info().digest == mixture.digest
        streamed = [sample for samples in client.read(requests) for sample in samples]
        client.close()
    assert [sample.key for sample in streamed[:-14]] == expected
    direct = [sample for samples in ShardReader(spec).read(requests) for sample in samples]
    assert [(s.key, bytes(s.image), s.caption) for s in streamed] == [
        (s.key, bytes(s.image), s.caption) for s in direct
    ]
    assert Counter(s.key for s in streamed[-14:]) == Counter(f"{key:016x}" for key in keys["val"])


def test_a_component_that_is_damaged_costs_its_own_samples_only(folders: list[Path], tmp_path: Path):
    write_toy(tmp_path / "cut", train=50, val=0, seed=9)
    mixture = open_shards([folders[0], tmp_path / "cut"])
    (tmp_path / "cut" / "train-000000.tar").unlink()
    _, captions, images = mixture.views("train", np.arange(150))
    readable = [image is not None for image in images]
    assert readable == [True] * 100 + [False] * 32 + [True] * 18
    assert [caption is not None for caption in captions] == readable


# ---------------------------------------------------------------------- specifications


def test_one_folder_is_itself(folders: list[Path]):
    for spec in (folders[0], str(folders[0]), [folders[0]], [{"path": folders[0], "weight": 3}]):
        assert isinstance(open_shards(spec), ShardSet)


def test_the_digest_is_of_what_is_mixed_and_how(folders: list[Path], spec: list[dict], mixture: Mixture):
    doubled = [{**entry, "weight": 2 * entry["weight"]} for entry in spec]
    assert open_shards(doubled).digest == mixture.digest
    other = {**spec[0], "weight": 0.7}
    digests = [mixture.digest, *(open_shards(s).digest for s in (spec[::-1], [other, *spec[1:]], spec[:2], folders))]
    assert len(set(digests)) == 5


def test_a_specification_survives_a_command_line(spec: list[dict], folders: list[Path]):
    for entries in (spec, folders):
        components = components_of(entries)
        words = arguments_of(components)
        count = len(components)
        weights = [float(word) for word in words[count + 1 :]] or None
        assert components_of(spec_of_arguments(words[:count], weights)) == components


def test_weights_on_the_command_line_must_be_as_many_as_folders(folders: list[Path], capsys):
    with pytest.raises(SystemExit, match="--weights has 1 numbers for 2 folders; give one for each"):
        main([str(folders[0]), str(folders[1]), "--weights", "0.5", "--port", "0"])


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ([], r"empty list.*data\.path=data/NAME"),
        ([{"path": "a", "weight": 1}, "b"], r"none for b; give every folder a weight.*path: b"),
        (["a", "./a"], r"names .*/a twice.*sum of the weights"),
        ([{"path": "a", "weight": 0}, "b"], "a the weight 0; a weight is a number above 0"),
        ([{"path": "a", "weight": -1}], "weight -1"),
        ([{"path": "a", "weight": True}], "weight True"),
        ([{"path": "a", "weight": "1"}], "weight '1'"),
        ([{"path": "a", "weight": float("nan")}], "weight nan"),
        ([{"path": "a", "weight": float("inf")}], "weight inf"),
        ([{"path": "a", "wieght": 1}], r"\{'path': 'a', 'wieght': 1\}; each is a folder, or \{path"),
        ([{"weight": 1}], "each is a folder"),
        ([{"path": None}], "whose path is no folder"),
    ],
)
def test_a_wrong_specification_is_refused_with_its_mend(spec: list, says: str):
    with pytest.raises(UserError, match=says):
        components_of(spec)


def test_components_that_cannot_be_mixed_are_refused(folders: list[Path], tmp_path: Path):
    write_toy(tmp_path / "copy", train=100, val=10, seed=0)
    with pytest.raises(UserError, match=r"/a and .*copy hold the same samples"):
        open_shards([folders[0], tmp_path / "copy"])
    write_toy(tmp_path / "only-val", train=0, val=5, seed=4)
    with pytest.raises(UserError, match=r"only-val would have none of every 1000.*has 0 of them"):
        open_shards([{"path": folders[0], "weight": 1}, {"path": tmp_path / "only-val", "weight": 1}])
    with pytest.raises(UserError, match=r"/b would have none of every 1000.*too small a weight.*raise its weight"):
        open_shards([{"path": folders[0], "weight": 1}, {"path": folders[1], "weight": 1e-6}])
    with ShardWriter(tmp_path / "large", split="train") as writer:
        writer.add("0" * 16, b"x", "", {})
        shards = {"train": writer.close()}
    write_manifest(tmp_path / "large", name="x", image_size_px=64, caption_template=None, shards=shards)
    with pytest.raises(UserError, match=r"32 px.*large of 64 px; .*image_size_px=32"):
        open_shards([folders[0], tmp_path / "large"])
    with pytest.raises(UserError, match=r"no shard folder .*nowhere"):
        open_shards([folders[0], tmp_path / "nowhere"])


def test_a_validation_picture_of_one_that_another_trains_on_is_refused(folders: list[Path], tmp_path: Path):
    shared = ShardSet.open(folders[0]).key("val", 3)
    with ShardWriter(tmp_path / "other", split="train") as writer:
        writer.add(shared, toy_image(77), "", {})
        writer.add("f" * 16, toy_image(78), "", {})
        shards = {"train": writer.close()}
    write_manifest(tmp_path / "other", name="x", image_size_px=32, caption_template=None, shards=shards)
    refuse_leaks(open_shards(folders[:2]))
    refuse_leaks(open_shards(folders[0]))
    for pair in ([folders[0], tmp_path / "other"], [tmp_path / "other", folders[0]]):
        with pytest.raises(
            UserError, match=rf"1 validation pictures of .*/a are training .*other.*{shared}.*val_fraction"
        ):
            refuse_leaks(open_shards(pair))
