"""Which checkpoint a run goes on from."""

from __future__ import annotations

from pathlib import Path

from diffusion_art.checkpoints import find_checkpoint, find_run, read_checkpoint
from diffusion_art.errors import UserError


def checked_resume(wanted: str | None, run_dir: Path) -> Path | None:
    """`resume_from`, and the file is one of ours and whole."""
    found = resume_from(wanted, run_dir)
    if found is not None and "optimizer_states" not in read_checkpoint(found):
        raise UserError(f"{found} holds averaged weights to paint with, not the state of a run: it cannot be resumed.")
    return found


def resume_from(wanted: str | None, run_dir: Path) -> Path | None:
    """The checkpoint to go on from.

    Raises:
        UserError: none where one was asked for, or one where none was.
    """
    if wanted not in (None, "last", "best", "auto"):
        return find_checkpoint(Path(wanted))
    present = any(run_dir.glob("checkpoints/*.ckpt"))
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
    return find_checkpoint(find_run(run_dir), which="best" if wanted == "best" else "last")
