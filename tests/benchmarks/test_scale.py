"""`benchmarks/scale.py`: what it says of too few servers, of servers that die, and of twice the rate."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import scale
from scale_sides.simulation import Setting, Simulation, lost_and_repeated

# 40 consumers, ten to a server
SMALL = Setting(servers=4, capacity=15_000, consumers=40, max_clients=10, hours=1, mtbf_hours=1e9)


def test_fewer_servers_than_the_capacity_needs_wait_and_enough_do_not():
    assert Simulation(SMALL).run().waiting < 0.005
    half = Simulation(replace(SMALL, servers=2, max_clients=None)).run()
    assert half.waiting == pytest.approx(0.5, abs=0.01)
    assert half.deaths == 0
    sent_away = Simulation(replace(SMALL, servers=2)).run()
    assert sent_away.ended == 20  # after two minutes at servers that have all the clients they take


def test_more_servers_survive_more_failures():
    survived = [scale.gone_at_once(replace(SMALL, servers=count), seeds=1) for count in (4, 5, 7)]
    assert survived == [0, 1, 3]
    assert scale.servers_of(replace(SMALL, servers=1), seeds=1) == 4
    assert scale.servers_of(replace(SMALL, servers=1, gone=1), seeds=1) == 5


@pytest.mark.parametrize("silent", [0.0, 1.0])
def test_a_server_that_dies_loses_and_repeats_no_pair(silent):
    dying = replace(SMALL, servers=6, mtbf_hours=0.3, silent=silent)
    told = Simulation(dying).run()
    assert told.deaths > 5
    assert (told.lost, told.repeated, told.ended) == (0, 0, 0)
    wanted = 3600 * dying.consumers * dying.rate
    windows = dying.consumers * dying.window * dying.batch
    assert told.pairs == pytest.approx((1 - told.waiting) * wanted, abs=windows)
    assert (told.waiting > 0.005) == (silent == 1.0)  # thirty seconds at each death
    assert Simulation(dying).run() == told
    assert Simulation(replace(dying, seed=1)).run() != told


def test_pairs_are_counted_where_ranges_leave_some_out_or_meet():
    assert lost_and_repeated([(0, 10), (25, 30), (8, 20)]) == (5, 2)
    assert lost_and_repeated([(4, 10)]) == (4, 0)


def test_clients_of_a_dead_server_stay_where_they_went_unless_servers_take_only_what_they_can():
    dying = replace(SMALL, servers=8, mtbf_hours=0.5, silent=0.0, hours=4)
    assert Simulation(dying).run().waiting < 0.005
    assert Simulation(replace(dying, max_clients=None)).run().waiting > 0.05


def test_twice_the_rate_is_twice_the_network_and_the_rows_say_so(painter_shards, tmp_path: Path):
    assert scale.gbit_per_s(3000, 9000) == 2 * scale.gbit_per_s(1500, 9000)
    results = tmp_path / "results"
    scale.main(consumers="4", rate="3000", hours="0.1", seeds="1", path=str(painter_shards), results=str(results))
    told = {row["measure"]: row for row in json.loads((results / "scale.json").read_text())}
    size = told["JPEG: bytes of a pair on the way"]["ours"]
    assert size > 300
    wire = told["JPEG: Gbit/s of 4 consumers of 3000 images/s"]["ours"]
    assert wire == pytest.approx(2 * scale.gbit_per_s(4 * 1500, size), abs=1e-3)
    assert told["latents: servers"]["ours"] == 1
    assert all(row["holds"] for row in told.values() if "holds" in row)
    assert "rate=3000" in (tmp_path / "RESULTS.md").read_text()


def test_a_rate_that_nobody_measured_is_asked_for():
    with pytest.raises(SystemExit, match=r"run python benchmarks/stream.py first"):
        scale.measured("stream", "a rate of dreams")
