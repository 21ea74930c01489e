"""From a run to an engine that paints from it, with what makes its network faster on this device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusion_art.accel import switch
from diffusion_art.accel.graphs import Captured
from diffusion_art.errors import UserError
from diffusion_art.runs import Run
from diffusion_art.serving.engine.compiled import WORTH_S, Compilation, check_compiler, worth_trying
from diffusion_art.serving.engine.engine import Engine


def check_compile(asked: bool | str, device: str) -> None:
    """UserError where `compile` is not a choice, or is true where nothing can be compiled."""
    if asked not in (True, False, "auto"):
        raise UserError(f"compile={asked} is not one of auto, true, false")
    if asked is True:
        check_compiler(device)


def open_engine(
    run: Run, settings: Mapping[str, Any], *, cores: int | None, compiling: bool | str
) -> tuple[Engine, Compilation | None]:
    """The engine, to be started, and the compilation of its network, to be started when the server answers.

    `compiling` is true, false or auto: where it pays. A GPU records the network's kernels unless it is false.

    Raises:
        UserError: settings that no engine can have.
    """
    try:
        engine = Engine(run.model, cores=cores, **settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"the engine cannot be made: {error} (in the config at `engine`)") from error
    if engine.model.device.type == "cuda" and compiling is not False and switch.ACCELERATES:
        engine.use(Captured.of(engine.model.backbone, dtype=engine.precision))
    if compiling is True or (compiling == "auto" and worth_trying(run.device)):
        return engine, Compilation(run, engine, after_s=0.0 if compiling is True else WORTH_S)
    return engine, None
