"""From `python -m diffusion_art.sample` to its picture, now, against this repository as it was at a commit.

    python benchmarks/first_picture.py [commit=e1d1158] [rounds=5]

Both trees paint one caption in 5 steps with the tiny model of `tests/golden/old`, in turns: same interpreter, libraries
and file. With so small a network nearly all of the time goes into imports, the config and loading. The first turn of
each side fills the page cache and counts no more. The default commit is the one from which the goal is reckoned.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import claim, command, machine, missing, write
from since import ROOT, lay_out

MODEL = ROOT / "tests" / "golden" / "old" / "model.safetensors"
GOAL = 1.25  # a fifth of the time less


def seconds(tree: Path, out: Path) -> float:
    """Of one process."""
    words = [f"run={MODEL}", "prompts=a red house", "num_steps=5", f"out={out}"]
    started = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-m", "diffusion_art.sample", *words], cwd=tree, capture_output=True, text=True
    )
    taken = time.perf_counter() - started
    if ran.returncode or not list(out.glob("*.png")):
        raise SystemExit(f"sampling in {tree} failed:\n{(ran.stdout + ran.stderr)[-2000:]}")
    return taken


def main(commit: str = "e1d1158", rounds: int = 5) -> None:
    measure = "sample: command to first picture, s"
    times: dict[str, list[float]] = {"now": [], "then": []}
    with tempfile.TemporaryDirectory() as made:
        try:
            trees = {"now": ROOT, "then": lay_out(commit, Path(made) / "tree")}
        except LookupError as error:
            write("first_picture", [missing(measure, str(error))])
            return
        for turn in range(rounds + 1):
            for name, tree in trees.items():
                times[name].append(seconds(tree, Path(made) / f"{name}-{turn}"))
                print(f"{name}: {times[name][-1]:.2f} s", flush=True)
    now, then = times["now"][1:], times["then"][1:]
    ratios = [before / after for before, after in zip(then, now, strict=True)]
    row = claim(
        measure,
        ours=statistics.median(now),
        peer=statistics.median(then),
        peer_name=f"the same at {commit}",
        ratio=statistics.median(ratios),
        ratios=[round(ratio, 3) for ratio in ratios],
        goal=f">= {GOAL}",
        holds=statistics.median(ratios) >= GOAL,
        command=command("first_picture", commit=commit, rounds=rounds),
        **machine(),
    )
    write("first_picture", [row])


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    main(**{name: int(value) if name == "rounds" else value for name, value in given.items()})
