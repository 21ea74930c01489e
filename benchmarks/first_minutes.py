"""From `git clone` to the first and to the last grid of `make train`, installing included, as a new user would.

    python benchmarks/first_minutes.py [folder=logs/first_minutes] [until=last] [train="+experiment=quickstart"] [venv=]

Clones this checkout's commit into `folder`, installs what `make train` installs, and trains. `until=first` stops after
the first grid of a network that has been trained. The seconds of each part are kept in `folder/seconds.json`: the same
command goes on where it was stopped, and counts the seconds of all its parts. Remove the folder to measure anew. With
`venv`, a virtual environment that is there already, nothing is installed, and no row says how long that takes.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import RESULTS, below, command, figure, machine, write

ROOT = Path(__file__).parents[1]
FIRST_S, LAST_S = 150.0, 480.0  # what we want
RUN = "first_minutes"


class Seconds:
    """How long each part took, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def __getitem__(self, part: str) -> float:
        return self.known.get(part, 0.0)

    def keep(self, part: str, seconds: float) -> None:
        self.known[part] = seconds
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.known, indent=1) + "\n")

    def once(self, part: str, do: Callable[[], Any]) -> None:
        """Do a part that was not done yet."""
        if part not in self.known:
            began = time.monotonic()
            do()
            self.keep(part, time.monotonic() - began)
        print(f"{part}: {self[part]:.1f} s", flush=True)


def clone(to: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(to)], check=True)


def run_training(checkout: Path, seconds: Seconds, *, words: str, until: str, venv: str | None) -> None:
    """Train in the clone, from the last checkpoint if there is one, and note when grids are there."""
    line = f"{words} run={RUN} ckpt_path=auto"
    made = ["make", "train", f"ARGS={line}"]
    process = subprocess.Popen(
        [str(Path(venv, "bin", "python")), "-m", "diffusion_art.train", *shlex.split(line)] if venv else made,
        cwd=checkout,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        start_new_session=True,
    )
    began, before = time.monotonic(), seconds["train"]
    try:
        while process.poll() is None:
            time.sleep(0.2)
            seconds.keep("train", before + time.monotonic() - began)
            _note(checkout, seconds)
            if until == "first" and "first grid" in seconds.known:
                return
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    if process.returncode:
        raise SystemExit(f"the training ended with status {process.returncode}; the same command goes on with it")
    _note(checkout, seconds)
    grids = sorted(checkout.glob(f"logs/*/{RUN}/samples/step_*.png"))
    seconds.keep("last grid", seconds["train"] - (time.time() - grids[-1].stat().st_mtime))


def _note(checkout: Path, seconds: Seconds) -> None:
    """Keep when the grid of step 0, and the first one of a trained network, were there."""
    for number, path in enumerate(sorted(checkout.glob(f"logs/*/{RUN}/samples/step_*.png"))[:2]):
        part = ("grid of step 0", "first grid")[number]
        if part not in seconds.known and path.stat().st_size:
            seconds.keep(part, seconds["train"])


def rows(seconds: Seconds, *, here: dict[str, Any]) -> list[dict[str, Any]]:
    """What is known of: clone, install, and the grids counted from the clone on."""
    start = seconds["clone"] + seconds["install"]
    found = [figure(f"{part}, s", seconds[part], **here) for part in ("clone", "install") if part in seconds.known]
    if "grid of step 0" in seconds.known:
        found.append(
            figure("clone to the grid of step 0, which is noise, s", start + seconds["grid of step 0"], **here)
        )
    if "first grid" in seconds.known:
        value = start + seconds["first grid"]
        found.append(below("clone to the first grid of a trained network, s", value, FIRST_S, goal="<= 150 s", **here))
    if "last grid" in seconds.known:
        found.append(figure("clone to the last grid, s", start + seconds["last grid"], **here))
        found.append(below("train, start to the last grid, s", seconds["last grid"], LAST_S, goal="<= 480 s", **here))
    return found


def main(
    folder: str = "logs/first_minutes",
    until: str = "last",
    train: str = "+experiment=quickstart",
    venv: str = "",
    results: str = str(RESULTS),
) -> None:
    place = Path(folder).resolve()
    checkout, seconds = place / "diffusion_art", Seconds(place / "seconds.json")
    seconds.once("clone", lambda: clone(checkout))
    if not venv:
        line = ["make", "--silent", ".venv/bin/.trains"]
        seconds.once("install", lambda: subprocess.run(line, cwd=checkout, check=True))
    if "last grid" not in seconds.known and not (until == "first" and "first grid" in seconds.known):
        run_training(checkout, seconds, words=train, until=until, venv=venv or None)
    given = {"until": until, "train": train} | ({"venv": "..."} if venv else {})
    here = {"command": command("first_minutes", **given), **machine()}
    write("first_minutes", rows(seconds, here=here), results=Path(results))


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
