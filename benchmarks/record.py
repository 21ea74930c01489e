"""How every benchmark writes its result: `results/NAME.json`, a list of claims with their evidence, and all of them
as tables in `RESULTS.md`.
"""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path
from typing import Any

from diffusion_art.shards.build.engine import usable_cores
from diffusion_art.training.run.provenance import commit

RESULTS = Path(__file__).parent / "results"
HEAD = (  # of RESULTS.md
    "Written by the benchmarks in this folder. `make bench` runs all but `trainings.py`, and `quality.py` in its short "
    "form.",
    "",
    "In tables from before 2026-11-28 `quickstart` is the recipe that is called `quickstart32` today.",
)


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
        "date": _today(),
        **more,
    }
    verdict = "holds" if holds else "MISSED"
    print(f"{measure}: {row['ours']} against {row['peer']} ({peer_name}): ratio {row['ratio']}, goal {goal}: {verdict}")
    return row


def below(measure: str, value: float, limit: float, *, goal: str, **more: Any) -> dict[str, Any]:
    """One row for a figure that has to stay below `limit`, or where `goal` begins with <= reach it at most."""
    holds = value <= limit if goal.startswith("<=") else value < limit
    ratio = limit / max(value, limit / 100)
    return claim(measure, ours=value, peer=limit, peer_name="the limit", ratio=ratio, goal=goal, holds=holds, **more)


def none(measure: str, count: int, **more: Any) -> dict[str, Any]:
    """One row for what must not happen, and did so often."""
    ratio = 0.0 if count else 1.0
    return claim(measure, ours=count, peer=0, peer_name="the limit", ratio=ratio, goal="none", holds=not count, **more)


def figure(measure: str, value: float, **more: Any) -> dict[str, Any]:
    """One row that claims nothing: a calibrator, or one of the sides behind a claim."""
    print(f"{measure}: {value:.6g}")
    return {"measure": measure, "ours": round(value, 3), "commit": commit(), "date": _today(), **more}


def missing(measure: str, reason: str, **more: Any) -> dict[str, Any]:
    """One row for what could not be measured, with the reason."""
    print(f"{measure}: not measured, {reason}")
    return {"measure": measure, "reason": reason, "commit": commit(), "date": _today(), **more}


def command(script: str, **given: Any) -> str:
    """The command line behind the results. Of an absolute path only its end is told: the rest is one machine's."""
    words = [f"{name}={_told(value)}" for name, value in given.items()]
    return " ".join([f"python benchmarks/{script}.py", *words])


def _told(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f".../{Path(value).name}" if isinstance(value, str) and Path(value).is_absolute() else str(value)


def machine() -> dict[str, Any]:
    """What a figure depends on: the processor, its usable cores, Python."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "python": platform.python_version(),
    }


def write(name: str, rows: list[dict[str, Any]], *, results: Path = RESULTS) -> Path:
    """Write the rows of benchmark `name`, and the tables of all benchmarks in `results` anew, beside that folder."""
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{name}.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")
    (results.parent / "RESULTS.md").write_text(tables(results))
    return path


def tables(results: Path = RESULTS) -> str:
    """RESULTS.md: a table for each file of results, losses and what could not be measured included."""
    text = ["# Results", "", *HEAD]
    for path in sorted(results.glob("*.json")):
        rows = json.loads(path.read_text())
        commands = dict.fromkeys(row["command"] for row in rows if "command" in row)
        where = next((f", {row['cpu']}, {row['cores']} cores" for row in rows if "cpu" in row), "")
        where += "".join(f", {gpu}" for gpu in dict.fromkeys(row["gpu"] for row in rows if "gpu" in row))
        when = sorted({f"{row['date']}, commit {row['commit']}" for row in rows})
        text += ["", f"## {path.stem}", "", f"{'; '.join(when)}{where}. " + " ".join(f"`{c}`" for c in commands), ""]
        text += ["| measure | ours | against | theirs | ratio | goal | |", "|---|---:|---|---:|---:|---|---|"]
        text += [_row(row) for row in rows]
        if (curves := path.with_suffix(".png")).exists():
            text += ["", f"![curves of {path.stem}](results/{curves.name})"]
    return "\n".join(text) + "\n"


def _row(row: dict[str, Any]) -> str:
    if "reason" in row:
        return f"| {row['measure']} | | {row['reason'].replace('|', '/')} | | | | not measured |"
    if "ratio" not in row:
        return f"| {row['measure']} | {_short(row['ours'])} | | | | | |"
    low_high = row.get("ratios")
    spread = f" ({_short(min(low_high))} to {_short(max(low_high))})" if low_high else ""
    cells = [row["measure"], _short(row["ours"]), row["peer_name"], _short(row["peer"])]
    cells += [_short(row["ratio"]) + spread, row["goal"], "holds" if row["holds"] else "**missed**"]
    return "| " + " | ".join(cells) + " |"


def _short(value: float) -> str:
    """Three digits, thousands set off: 12,300; 4.56; 0.0123."""
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
