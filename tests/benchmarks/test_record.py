"""What a recorded result says of how it was made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import record


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"run": "logs/quickstart", "seconds": 20.0, "peers": "true"}, "run=logs/quickstart seconds=20 peers=true"),
        ({"run": "/home/somebody/logs/quickstart", "count": 96}, "run=.../quickstart count=96"),
        ({"run": "a.ckpt", "seconds": 0.5}, "run=a.ckpt seconds=0.5"),
    ],
)
def test_a_command_tells_what_was_given_but_no_place_of_a_machine(given, told):
    assert record.command("serve", **given) == f"python benchmarks/serve.py {told}"


@pytest.mark.parametrize(
    ("row", "ratio", "holds"),
    [
        (lambda: record.below("s", 2.0, 5, goal="< 5 s"), 2.5, True),
        (lambda: record.below("s", 5.0, 5, goal="< 5 s"), 1.0, False),
        (lambda: record.below("s", 5.0, 5, goal="<= 5 s"), 1.0, True),
        (lambda: record.below("s", 0.0, 5, goal="< 5 s"), 100.0, True),
        (lambda: record.none("lost", 0), 1.0, True),
        (lambda: record.none("lost", 3), 0.0, False),
    ],
)
def test_a_limit_holds_below_it(row, ratio, holds):
    made = row()
    assert (made["ratio"], made["holds"]) == (ratio, holds)
