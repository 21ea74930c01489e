"""Which server's turn it is."""

from __future__ import annotations

import pickle
import random
from collections import Counter

from diffusion_art.streaming.client.line import Turns

URLS = [f"ws://{name}:8000/ws" for name in "abcdef"]


def urls_of(turns: Turns, count: int) -> list[str]:
    found = []
    for _ in range(count):
        found.append(turns.url)
        turns.pass_on()
    return found


def test_every_server_has_its_turn_before_one_has_another():
    turns = Turns(URLS)
    once = urls_of(turns, len(URLS))
    assert sorted(once) == URLS
    assert urls_of(turns, 2 * len(URLS)) == 2 * once


def test_readers_of_a_server_that_is_gone_spread_over_all_others():
    chance = random.Random(0)
    orders = [urls_of(Turns(URLS, chance), 2) for _ in range(3000)]
    went_on = Counter(after for before, after in orders if before == URLS[0])
    assert set(went_on) == set(URLS[1:])
    assert min(went_on.values()) > 0.6 * max(went_on.values())


def test_a_reader_that_is_sent_to_another_process_keeps_its_turn():
    turns = Turns(URLS)
    turns.pass_on()
    again = pickle.loads(pickle.dumps(turns))
    assert urls_of(again, 6) == urls_of(turns, 6)
