"""What the processes of a run agree on that torchrun starts again."""

from __future__ import annotations

import threading

import pytest
from torch.distributed import HashStore, TCPStore

from diffusion_art.errors import UserError
from diffusion_art.training.run.resume import agreed, beginning


def _words(store, world_size: int) -> list[str]:
    """What each process of an attempt gets."""
    found: dict[int, str] = {}

    def ask(rank: int) -> None:
        found[rank] = agreed(store, rank=rank, world_size=world_size)

    threads = [threading.Thread(target=ask, args=(rank,)) for rank in reversed(range(world_size))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return list(found.values())


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_agree_on_a_word_that_none_before_them_had(world_size):
    store = HashStore()
    store.set("asks/1", "a process that was killed before it was answered")
    attempts = [_words(store, world_size) for _ in range(3)]
    assert all(len(words) == world_size and len(set(words)) == 1 for words in attempts)
    assert len({words[0] for words in attempts}) == 3


@pytest.fixture
def torchruns(monkeypatch) -> TCPStore:
    """The store of a torchrun that started this process."""
    store = TCPStore("127.0.0.1", 0, is_master=True)
    settings = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "RANK": "1"}
    for name, value in {**settings, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    return store


def test_a_run_began_before_once_it_was_not_refused_whatever_its_launcher_counts(torchruns, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    with pytest.raises(UserError), beginning():
        raise UserError("the folder already holds a run")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with beginning() as again:
        assert not again
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")  # another machine's torchrun began this attempt
    with beginning() as again:
        assert again


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_without_a_store_the_launchers_count_is_believed(name, monkeypatch):
    for count, told in (("", False), ("0", False), ("2", True)):
        monkeypatch.setenv(name, count)
        with beginning() as again:
            assert again == told
