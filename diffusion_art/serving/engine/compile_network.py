"""The process that compiles a run's network.

    python -m diffusion_art.serving.engine.compile_network '{"checkpoint": ...}'

Started by `compiled.py`. Says what failed on its last line, and ends when the process that started it does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from copy import deepcopy
from pathlib import Path
from zipfile import ZipFile

import torch
from torch import Tensor, nn

from diffusion_art.accel.ahead_of_time import CompiledNetwork, arguments
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.runs import Run
from diffusion_art.tensors import Conditioning

# 2-norm of the difference to the network as it is, over that of its answer
TOLERANCE = {torch.bfloat16: 3e-2, torch.float32: 1e-3}


class Flat(nn.Module):
    """A backbone that takes its conditioning as tensors."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x_t: Tensor, t: Tensor, tokens: Tensor, mask: Tensor, pooled: Tensor) -> Tensor:
        return self.backbone(x_t, t, Conditioning(tokens, mask, pooled))


@torch.no_grad()
def compile_network(model: TextToImage, path: Path, *, dtype: torch.dtype, max_rows: int) -> None:
    """Write the model's backbone, compiled for 2 to `max_rows` rows and captions of any length, to the library `path`.

    Raises:
        RuntimeError: it answers otherwise than the backbone.
    """
    from torch._inductor import aoti_compile_and_package
    from torch.export import Dim, export

    net = Flat(deepcopy(model.backbone)).to(dtype).eval()
    rows, length = Dim("rows", min=2, max=max(3, max_rows)), Dim("length", min=2, max=model.text_encoder.context_length)
    given = arguments(*example(model, rows=3), dtype=dtype)
    shapes = ({0: rows}, {0: rows}, {0: rows, 1: length}, {0: rows, 1: length}, {0: rows})
    exported = export(net, given, dynamic_shapes=shapes)
    settings = {"freezing": True, "cpp.dynamic_threads": True}
    package = path.with_suffix(".pt2")
    aoti_compile_and_package(exported, package_path=str(package), inductor_configs=settings)
    with ZipFile(package) as packed:
        (library,) = (name for name in packed.namelist() if name.endswith(".so"))
        path.write_bytes(packed.read(library))
    package.unlink()
    check(model, CompiledNetwork(path, dtype=dtype), rows=max_rows)


def example(model: TextToImage, *, rows: int) -> tuple[Tensor, Tensor, Conditioning]:
    """Any input of so many rows, its captions padded."""
    generator = torch.Generator().manual_seed(0)
    cond = model.encode_captions(["a", "a rather long caption of a picture in red and blue / Impressionism"][:rows])
    cond = cond[torch.arange(rows) % len(cond)]
    x_t = torch.randn(rows, *model.latent_shape, generator=generator)
    return x_t, torch.linspace(0.05, 0.95, rows), cond


def check(model: TextToImage, compiled: CompiledNetwork, *, rows: int) -> None:
    """RuntimeError unless it answers as the backbone does, but for rounding."""
    dtype = compiled.dtype
    for count in sorted({1, 2, rows}):
        x_t, t, cond = example(model, rows=count)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            wanted = model.denoise(x_t, t, cond).float()
        error = ((compiled(x_t, t, cond).float() - wanted).norm() / wanted.norm().clamp(min=1e-3)).item()
        if not error <= TOLERANCE[dtype]:
            raise RuntimeError(f"compiled, it answers {count} rows {error:.1%} off; {TOLERANCE[dtype]:.1%} is rounding")


def main() -> None:
    asked = json.loads(sys.argv[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(19)
    model = Run(Path(asked["checkpoint"]), weights=asked["weights"]).model
    try:
        dtype = getattr(torch, asked["dtype"])
        compile_network(model, Path(asked["path"]), dtype=dtype, max_rows=asked["max_rows"])
    except Exception as error:
        raise SystemExit(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}") from error


def _end_with_parent() -> None:
    sys.stdin.read()
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
