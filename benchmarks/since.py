"""Training speed of an experiment now, against this repository as it was at a commit.

    python benchmarks/since.py commit=3364aed [experiment=quickstart32] [rounds=3] [steps=80]

The commit's files are laid out in a folder of their own, and both trees train the experiment as a user would, by
`python -m diffusion_art.train`, in turns: same interpreter and libraries, shards painted before the time begins, no
sample grid or validation inside it. A turn's figure is the median of what the throughput callback logs every 20 steps,
the first 20 left out; the claim is the median ratio of the turns. The default commit is the one from which the goals
for the 32 px quickstart are reckoned: with `quality.py` the speed says how much sooner it follows captions as well.
"""

from __future__ import annotations

import csv
import statistics
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from tarfile import open as open_tar

from record import claim, command, machine, missing, write

ROOT = Path(__file__).parents[1]
WINDOW = 20  # steps between two figures of the throughput callback


def lay_out(commit: str, folder: Path) -> Path:
    """The files of a commit. LookupError where this is no clone that has it."""
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    if packed.returncode:
        raise LookupError(f"{packed.stderr.decode().strip()}: it takes a clone with its whole history")
    with open_tar(fileobj=BytesIO(packed.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def images_per_s(tree: Path, experiment: str, *, steps: int, folder: Path) -> float:
    """Of one run of `steps` steps. What is `quickstart32` today was once named `quickstart`."""
    known = (tree / "conf" / "experiment" / f"{experiment}.yaml").exists()
    words = [
        f"+experiment={experiment if known else experiment.removesuffix('32')}",
        "run=since",
        "callbacks.samples=null",
        "callbacks.caption_following=null",
        f"trainer.max_steps={steps}",
        f"trainer.val_check_interval={steps}",
        f"callbacks.checkpoints.every_n_steps={steps}",
        f"paths.log_dir={folder}",
    ]
    ran = subprocess.run(
        [sys.executable, "-m", "diffusion_art.train", *words], cwd=tree, capture_output=True, text=True
    )
    if ran.returncode:
        raise SystemExit(f"training in {tree} failed:\n{(ran.stdout + ran.stderr)[-2000:]}")
    with next(folder.glob("*/since/metrics.csv")).open() as file:
        rows = [float(row["time/images_per_s"]) for row in csv.DictReader(file) if row.get("time/images_per_s")]
    return statistics.median(rows[1:])


def main(commit: str = "3364aed", experiment: str = "quickstart32", rounds: int = 3, steps: int = 80) -> None:
    if steps < 2 * WINDOW:
        raise SystemExit(f"steps={steps}: at least {2 * WINDOW}, of which the first {WINDOW} are left out")
    speeds: dict[str, list[float]] = {"now": [], "then": []}
    with tempfile.TemporaryDirectory() as made:
        try:
            trees = {"now": ROOT, "then": lay_out(commit, Path(made) / "tree")}
        except LookupError as error:
            write("since", [missing(f"{experiment} images/s against those at {commit}", str(error))])
            return
        for name, tree in trees.items():  # shards
            images_per_s(tree, experiment, steps=2 * WINDOW, folder=Path(made) / f"{name}-shards")
        for turn in range(rounds):
            for name, tree in trees.items():
                speed = images_per_s(tree, experiment, steps=steps, folder=Path(made) / f"{name}-{turn}")
                speeds[name].append(speed)
                print(f"{name}: {speed:.1f} images/s", flush=True)
    ratios = [now / then for now, then in zip(speeds["now"], speeds["then"])]
    row = claim(
        f"{experiment} images/s",
        ours=statistics.median(speeds["now"]),
        peer=statistics.median(speeds["then"]),
        peer_name=f"the same at {commit}",
        ratio=statistics.median(ratios),
        ratios=[round(ratio, 3) for ratio in ratios],
        goal=">= 1",
        holds=statistics.median(ratios) >= 1,
        command=command("since", commit=commit, experiment=experiment, rounds=rounds, steps=steps),
        **machine(),
    )
    write("since", [row])


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    main(**{name: int(value) if name in ("rounds", "steps") else value for name, value in given.items()})
