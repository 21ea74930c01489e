"""The figures of a finished training, as rows: what README's table of results says of it.

    python benchmarks/trainings.py run=logs/quickstart/first [minutes=true]

Reads the run folder that a training leaves, its `report.md` and `caption_following.json`. Rows of other experiments
stay. `minutes=false` where the machine had other work meanwhile: then no row says how long it took.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from record import RESULTS, command, figure, missing, write

FIGURES = {"style": "style", "both colours": "palette", "held-out pairs": "held_out"}


def rows_of(run: Path, *, minutes: bool = True) -> list[dict[str, Any]]:
    """FileNotFoundError for a run that is not over: it has no report."""
    told = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", (run / "report.md").read_text("utf-8"), re.MULTILINE))
    name = str(OmegaConf.load(run / "config.yaml").name)
    more = {
        "commit": told["commit"],
        "experiment": name,
        "command": command("trainings", run=str(run), minutes=str(minutes).lower()),
    }
    rows = [figure(f"{name}: steps", float(told["steps"].split(" ")[0].replace(",", "")), **more)]
    if minutes:
        rows.append(figure(f"{name}: minutes", float(told["minutes"]), **more))
    else:
        rows.append(missing(f"{name}: minutes", "the machine had other work", **more))
    path = run / "caption_following.json"
    found = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return rows + [
        figure(f"{name}: {label}, %", round(100 * found[key], 1), **more)
        for label, key in FIGURES.items()
        if key in found
    ]


def main(run: str, minutes: str = "true", results: str = str(RESULTS)) -> None:
    rows = rows_of(Path(run), minutes=minutes == "true")
    path = Path(results) / "trainings.json"
    before = json.loads(path.read_text()) if path.exists() else []
    kept = [row for row in before if row["experiment"] != rows[0]["experiment"]]
    write("trainings", sorted(kept + rows, key=lambda row: row["experiment"]), results=Path(results))


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
