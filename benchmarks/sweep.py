"""What pruning saves a search: the same trials to their ends and pruned.

    python benchmarks/sweep.py [trials=12] [steps=64] [pruner=halving] [seed=0] [keep=FOLDER]

Two sweeps by the real command over rate and noise schedule of the 32 px quickstart with `+debug=tiny`; both draw the
same trials (`hydra/sweeper/sampler=random`). Steps are counted and not timed, so other work here does not matter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from record import claim, command, write

from diffusion_art.checkpoints import find_checkpoint
from diffusion_art.sweeps.study import open_study
from diffusion_art.training.run.resume import steps_done

VALIDATIONS = 8  # of a whole trial


def sweep(folder: Path, *, pruner: str, trials: int, steps: int, seed: int) -> Path:
    """Run it; its folder."""
    words = [
        *("+experiment=quickstart32", "+debug=tiny", "+sweep=optuna", f"run={pruner}", f"pruner={pruner}"),
        *("hydra/sweeper/sampler=random", f"hydra.sweeper.sampler.seed={seed}", f"hydra.sweeper.n_trials={trials}"),
        *("optim.lr=tag(log,interval(1e-4,3e-1))", "model/schedule=choice(cosine,flow)"),
        *(f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps // VALIDATIONS}", "data.val_samples=32"),
        *("data.num_workers=0", "data.url=shards", "data.source.count=1000", "optim=adamw", "alignment=none"),
        *("callbacks.samples=null", "callbacks.progress=null", "callbacks.throughput=null", "callbacks.loss_plot=null"),
        "callbacks.checkpoints.every_n_steps=0",
    ]
    subprocess.run([sys.executable, "-m", "diffusion_art.train", *words], cwd=folder, check=True, env=dict(os.environ))
    return folder / f"logs/tiny/sweep_{pruner}"


def taken(folder: Path) -> int:
    """Steps of all its trials."""
    return sum(steps_done(find_checkpoint(folder / str(trial.number))) for trial in open_study(folder).get_trials())


def main(trials: int = 12, steps: int = 64, pruner: str = "halving", seed: int = 0, keep: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        settings = {"trials": trials, "steps": steps, "seed": seed}
        whole = sweep(Path(temporary), pruner="none", **settings)
        pruned = sweep(Path(temporary), pruner=pruner, **settings)
        ours, theirs = taken(pruned), taken(whole)
        best = [open_study(folder).best_trial for folder in (pruned, whole)]
        if keep is not None:  # to look at
            shutil.copytree(Path(temporary) / "logs", keep)
    same = best[0].params == best[1].params
    print(f"best: trial {best[0].number} ({best[0].value:.4g}) and {best[1].number} ({best[1].value:.4g})")
    row = claim(
        f"steps of a sweep of {trials} trials, pruner={pruner}, {'the same' if same else 'another'} best trial",
        ours=ours,
        peer=theirs,
        peer_name="the same trials to their ends",
        ratio=ours / theirs,
        goal="<= 0.5, the same best trial",
        holds=same and ours <= theirs / 2,
        rounds=1,
        command=command("sweep", trials=trials, steps=steps, pruner=pruner, seed=seed),
    )
    write("sweep", [row])


if __name__ == "__main__":
    given = {name: value for name, _, value in (word.partition("=") for word in sys.argv[1:])}
    main(**{name: value if name in ("pruner", "keep") else int(value) for name, value in given.items()})
