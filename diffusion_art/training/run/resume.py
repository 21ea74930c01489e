"""Which checkpoint a run goes on from, where in the run that is, and whether its launcher started it again.

Each machine's torchrun counts the restarts that it began itself, and not those that another one's failure began. So its
TORCHELASTIC_RESTART_COUNT differs between the processes of one attempt; also, attempts that were refused count. The
store of the launchers can be relied on: it outlives attempts, and what dead processes wrote is still in it.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from torch.distributed import Store, TCPStore  # pyright: ignore[reportPrivateImportUsage] -- documented there

from diffusion_art.checkpoints import find_checkpoint, find_run, has_checkpoints, read_plain, step_named
from diffusion_art.config import is_a, value_at
from diffusion_art.errors import UserError
from diffusion_art.record import Record
from diffusion_art.training.terms.teacher import Teacher
from diffusion_art.training.terms.term import Term


def checked_resume(wanted: str | int | None, run_dir: Path) -> Path | None:
    """`resume_from`, and the file is one of ours and whole. A run that its launcher starts again goes on from what it
    has saved itself, if anything, whatever it began from.
    """
    with beginning() as again:
        found = resume_from("last" if again and has_checkpoints(run_dir) else wanted, run_dir)
        if found is not None and "optimizer_states" not in read_plain(found):
            raise UserError(
                f"{found} holds averaged weights to paint with, not the state of a run: it cannot be resumed. A new "
                "run may begin with them, by init_from (docs/sharing.md)."
            )
    return found


# what a run that goes on trains with, and terms of others; the rest changes no weight, or is refused where it is read
TRAINS = (
    *("model", "objective", "noise", "alignment", "perceptual", "caption_dropout", "optim", "lr_schedule", "ema"),
    *("teacher.guidance_scale", "data.curriculum", "data.augmentation"),
    *("trainer.gradient_clip_val", "trainer.overfit_batches"),
)
FOLLOWS = ".total_steps"  # follows from the length of the run, in whichever part it stands


def changed(checkpoint: Path, settings: Mapping[str, Any]) -> str | None:
    """What a run that goes on trains with that the checkpoint was not trained with, in a sentence.

    Raises:
        UserError: another optimiser, whose state is another one, or a network that learnt to put out something else.
    """
    before = Record.of(read_plain(checkpoint), origin=checkpoint).config
    for part, told in (("optim", "optimiser"), ("model.prediction", "prediction")):
        was, now = (_target(value_at(config, part)) for config in (before, settings))
        if was and now and was != now:
            raise UserError(
                f"{checkpoint} was trained with the {told} {was}, and this run has {now}: give "
                f"{part.replace('.', '/')} as it was, or begin a new run."
            )
    of_others = [name for name, node in settings.items() if is_a(node, Term) and name not in (*TRAINS, Teacher.name)]
    pairs = (_differences(value_at(before, part), value_at(settings, part), part) for part in (*TRAINS, *of_others))
    found = [difference for pair in pairs for difference in pair]
    return f"other settings than in the checkpoint: {', '.join(found)}" if found else None


def _differences(before: Any, now: Any, key: str) -> Iterator[str]:
    """`key=NOW (BEFORE)` of the keys that both have, and whose values differ; of another class, its name alone."""
    if key.endswith(FOLLOWS) or before is None or now is None or before == now:
        return
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        yield f"{key}={now} ({before})"
    elif _target(before) != _target(now):
        yield f"{key}: {_target(now)} ({_target(before)})"
    else:
        for name in now:
            if name in before and name != "_target_":  # of one name, wherever it stood
                yield from _differences(before[name], now[name], f"{key}.{name}")


def _target(node: Any) -> str | None:
    """The name of the class that a node makes."""
    return str(node["_target_"]).rpartition(".")[2] if isinstance(node, Mapping) and "_target_" in node else None


def steps_done(checkpoint: Path) -> int:
    """Optimiser steps behind a checkpoint."""
    return int(read_plain(checkpoint)["global_step"])


def go_on_from(run_dir: Path) -> str:
    """How to go on with a run that ended early."""
    if not has_checkpoints(run_dir):
        return "Nothing was saved before that; start it again."
    return f"Step {steps_done(find_checkpoint(run_dir))} is saved; go on with: ckpt_path={run_dir}"


def resume_from(wanted: str | int | None, run_dir: Path) -> Path | None:
    """The checkpoint to go on from: `last`, `best` or the name of one in the run, or a path; `auto` is `last` if there
    is one.

    Raises:
        UserError: none where one was asked for, or one where none was.
    """
    wanted = "last" if wanted == "latest" else wanted  # diffusers' word
    if str(wanted).lower() in ("true", "false") and not Path(str(wanted)).exists():
        raise UserError(f"ckpt_path={wanted} names no checkpoint: give last, best, auto, a step or a path, or null.")
    if isinstance(wanted, str) and "://" in wanted:
        raise UserError(f"ckpt_path={wanted} is an address: download it, and give the path of the file.")
    if wanted not in (None, "last", "best", "auto") and (step_named(str(wanted)) is None or Path(str(wanted)).exists()):
        return find_checkpoint(Path(str(wanted)))
    present = has_checkpoints(run_dir)
    if wanted is None and present:
        raise UserError(
            f"{run_dir} already holds a run. Go on with it (ckpt_path=last), or give this one another name (run=NAME)."
        )
    if wanted is None or (wanted == "auto" and not present):
        return None
    if not present:
        raise UserError(
            f"ckpt_path={wanted}, but {run_dir} holds no checkpoint. Name the run to go on with (run=NAME), or "
            f"give a path "
            "(ckpt_path=logs/NAME/RUN)."
        )
    return find_checkpoint(find_run(run_dir), which="last" if wanted in (None, "auto") else str(wanted))


def taken_again(trainer: Trainer, folder: Path, pattern: str, *, checkpoints: Path) -> list[Path]:
    """Files and folders of `folder` like `step_*.ckpt` whose steps the run goes on to take again: those after the
    checkpoint that it was resumed from. Nothing where that does not lie in its own `checkpoints`. Ask when training
    starts: all is loaded then.
    """
    if trainer.ckpt_path is None:
        return []
    resumed = Path(trainer.ckpt_path).resolve()
    if resumed.parent != checkpoints.resolve():
        return []
    found = {path: re.match(r"step_(\d+)", path.name) for path in sorted(folder.glob(pattern))}
    later = [path for path, step in found.items() if step and int(step[1]) > trainer.global_step]
    return [path for path in later if path.resolve() != resumed]


def place_loops(checkpoint: dict[str, Any], *, batches_per_step: int, validates: Callable[[int], bool]) -> None:
    """Rewrite the counters of Lightning's loops in a checkpoint that was just read: so many steps were taken, in the
    first and only pass of the loader, which is as long as the run. `validates` says whether it does after a batch.

    Lightning tells by its counters at which moment of a step a file was written, and does not know all of them: a file
    written after the last step, or after a validation, goes on with labels one too high and an empty pass. Here there
    are two moments, after a step and after the validation that was due then; in the first one it is made up for.
    """
    _check_parts(checkpoint, batches_per_step)
    loops = checkpoint["loops"]["fit_loop"]
    steps, batch = checkpoint["global_step"], loops["epoch_loop.batch_progress"]
    made = batch["total"]["completed"] == batch["total"]["processed"]  # the batch is over, with all that follows it
    count = steps * batches_per_step
    loops["epoch_progress"] = _progress(ready=1, started=1)
    loops["epoch_loop.batch_progress"] = _progress(
        ready=count, started=count, processed=count, completed=max(0, count - 1), is_last_batch=False
    )
    to_come = {} if made else {"ready": 1, "started": 1}
    loops["epoch_loop.val_loop.batch_progress"] = _progress(**to_come, is_last_batch=False)
    # The label of the step taken last. Lightning adds one at the start, and one more after a validation.
    loops["epoch_loop.state_dict"] = {"_batches_that_stepped": steps - (1 if made or not validates(count) else 2)}


def _check_parts(checkpoint: dict[str, Any], batches_per_step: int) -> None:
    """UserError where a step was taken in another number of batches. Files of before do not name it, and it follows
    from their cursor; with fewer batches to a step such a run would wait for ever, with more see pictures again.
    """
    data, steps = checkpoint.get("StreamDataModule") or {}, checkpoint["global_step"]
    if "accumulate_grad_batches" in data or not steps or not data.get("cursor"):
        return
    if (trained := data["cursor"] // steps) != batches_per_step:
        raise UserError(
            f"the checkpoint was trained with trainer.accumulate_grad_batches={trained}, this run has "
            f"{batches_per_step}: its place in the data would be lost. Resume with "
            f"trainer.accumulate_grad_batches={trained}."
        )


def _progress(*, is_last_batch: bool | None = None, **counts: int) -> dict[str, Any]:
    """What Lightning keeps of something it counts."""
    counters = {name: counts.get(name, 0) for name in ("ready", "completed", "started", "processed")}
    last = {} if is_last_batch is None else {"is_last_batch": is_last_batch}
    return {"total": dict(counters), "current": dict(counters), **last}


# ---------------------------------------------------------------------- attempts of a launcher

COUNTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")  # what launchers say where there is no store


def launchers_store() -> Store | None:
    """That of the torchrun that started this process, if one did and lends it."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def _counted(name: str) -> bool:
    """Whether a launcher counts restarts in this variable."""
    return os.environ.get(name, "0") not in ("", "0")


@contextmanager
def beginning() -> Iterator[bool]:
    """A block that looks for what the run begins from; it is given whether the run began before, and was started again.
    A block that raises has not begun.
    """
    store, key = launchers_store(), f"begun/{os.environ.get('RANK')}"
    if store is None:
        yield any(map(_counted, COUNTS))
        return
    yield _counted("SLURM_RESTART_COUNT") or store.check([key])
    store.set(key, "")


def agreed(store: Store, *, rank: int, world_size: int) -> str:
    """A word that all living processes of a group get and none before them had. Each asks in a name of its own; the
    first process answers until all have thanked it.
    """
    name = uuid.uuid4().hex
    if rank != 0:
        store.set(f"asks/{rank}", name)
        word = store.get(f"answer/{name}").decode()
        store.set(f"thanks/{word}/{rank}", "")
        return word
    waiting = set(range(1, world_size))
    while waiting:
        for other in [other for other in waiting if store.check([f"asks/{other}"])]:
            store.set(f"answer/{store.get(f'asks/{other}').decode()}", name)
            if store.check([f"thanks/{name}/{other}"]):
                waiting.remove(other)
        time.sleep(0.02)
    return name
