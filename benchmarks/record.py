"""How every benchmark writes its result: `results/NAME.json`, a list of claims with their evidence."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from diffusion_art.training.provenance import commit

RESULTS = Path(__file__).parent / "results"


def claim(
    measure: str,
    *,
    ours: float,
    peer: float,
    peer_name: str,
    ratio: float,
    goal: str,
    holds: bool,
    **more: Any,
) -> dict[str, Any]:
    """One row: what was measured, both sides, their ratio (median of interleaved pairs) and whether the goal
    was met.
    """
    row = {
        "measure": measure,
        "ours": round(ours, 3),
        "peer": round(peer, 3),
        "peer_name": peer_name,
        "ratio": round(ratio, 3),
        "goal": goal,
        "holds": holds,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        **more,
    }
    verdict = "holds" if holds else "MISSED"
    print(f"{measure}: {row['ours']} against {row['peer']} ({peer_name}): ratio {row['ratio']}, goal {goal}: {verdict}")
    return row


def write(name: str, rows: list[dict[str, Any]]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")
    return path
