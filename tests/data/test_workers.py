"""What loader workers are told of their trainer."""

from __future__ import annotations

from torch._subclasses import FakeTensorMode
from torch.utils.data import DataLoader

from diffusion_art.data.workers import Crew


def test_workers_can_be_dismissed_whatever_mode_torch_is_in():
    """A loader is freed at any moment."""
    crew = Crew()
    with FakeTensorMode():
        crew.dismiss()
    assert crew._leaving.value == 1


def test_started_workers_hear_of_it():
    crew = Crew()
    batches = iter(DataLoader(range(4), num_workers=1, worker_init_fn=crew, multiprocessing_context="spawn"))
    assert len(list(batches)) == 4
    crew.dismiss()
