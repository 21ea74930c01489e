"""A network compiled by region: each kind of block once for each shape that it meets, not the network as one graph.

    compile_regions(backbone, backbone.regions)

Blocks of one kind and shape share the code, so that compiling takes a fraction of the time; what lies between them,
skips and the time's embedding, runs as it is. What was compiled is kept on disk for the next start.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.compiler import config as compiler_config

from diffusion_art.accel.switch import triton_lacks
from diffusion_art.errors import UserError
from diffusion_art.files import cache_folder, check_ours

SHAPES = 64  # of one kind of block that are compiled; any more run as they are
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"

log = logging.getLogger(__name__)


def compile_regions(
    module: nn.Module, kinds: Sequence[type[nn.Module]], *, backend: str | Callable[..., Any] = "inductor"
) -> int:
    """Compile the blocks of these kinds in `module`, at their first call each; returns how many blocks there are.

    Only calls that record gradients are compiled: a grid of samples or a validation comes with other batch sizes, each
    of which would be compiled anew. A copy of the module is as it was before.
    """
    keep_on_disk()
    # for the process, since torch.compile takes a limit of its own only from 2.14 on
    compiler_config.recompile_limit = max(compiler_config.recompile_limit, SHAPES)
    compiled = {kind: torch.compile(kind.forward, backend=backend, dynamic=False) for kind in kinds}
    blocks = [block for block in module.modules() if type(block) in compiled]
    for block in blocks:
        block._compiled_call_impl = _called(block, compiled[type(block)])  # type: ignore[assignment]
    return len(blocks)


def _called(block: nn.Module, compiled: Callable[..., Any]) -> Callable[..., Any]:
    """What stands in for `block(...)`; torch.nn.Module leaves it out of copies."""

    def call(*arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return block._call_impl(*arguments, **named)
        try:
            return compiled(block, *arguments, **named)
        except Exception as error:
            if not _of_compiler(error):
                raise
            said = str(getattr(error, "inner_exception", error)).strip().partition("\n")[0] or type(error).__name__
            raise UserError(
                f"{type(block).__name__} could not be compiled ({said[:200]}). Train it as it is: compile=false."
            ) from error

    return call


def _of_compiler(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException  # the compiler's front end takes a second to import

    return isinstance(error, TorchDynamoException)


def cannot_compile(device: str) -> str | None:
    """Why nothing can be compiled for this kind of device here; None if it can."""
    if device == "cuda":
        return triton_lacks()
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name):
        return "there is no C++ compiler, neither $CXX nor g++ nor clang++ (apt-get install g++)"
    return None


def keep_on_disk() -> None:
    """Keep what torch compiles in this user's cache folder, unless $TORCHINDUCTOR_CACHE_DIR names another.

    Torch sets that variable itself once it is asked, to `torchinductor_<user>` among the temporary files.
    """
    if not Path(os.environ.get(CACHE_VARIABLE, "torchinductor_")).name.startswith("torchinductor_"):
        return
    folder = cache_folder("inductor")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_ours(folder)
    except (OSError, RuntimeError) as error:
        log.warning("what is compiled is not kept for the next start: %s", error)
        return
    os.environ[CACHE_VARIABLE] = str(folder)
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE", "1")
