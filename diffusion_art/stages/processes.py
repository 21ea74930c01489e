"""A stage is the command that a person would type, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from types import FrameType

from diffusion_art.errors import UserError
from diffusion_art.stages.marks import Stage
from diffusion_art.stop_signals import handled, stop_signal


def run(stage: Stage) -> None:
    """Run the stage to its end. A stop signal is passed on, and this process ends as the stage does.

    Raises:
        UserError: the stage failed; it has said why.
    """
    line = [sys.executable, "-m", f"diffusion_art.{stage.command}", *stage.words]
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}  # ours (cli.py)
    child: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in child:
            process.send_signal(number)

    with handled(pass_on):
        child.append(subprocess.Popen(line, env=environment))
        status = child[0].wait()
    if stop_signal(status):
        raise SystemExit(status)
    if status:
        raise UserError(
            f"the stage {stage.name} ended with status {status}; its message is above. "
            "The same command goes on with this stage."
        )
