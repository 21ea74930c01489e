"""The kernels compiled for compute capability 9.0, which needs no GPU: `python -m tests.accel.norm_for_hopper`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from diffusion_art.accel import norm_kernels as kernels

MAPS = ("x", "y", "grad", "out")
NUMBERS = ("p", "c", "chunk", "splits")
PASSES = {
    kernels._moments: (("x", "parts"), {}),
    kernels._affine: (("x", "coefficients", "y"), {"SILU": True}),
    kernels._gradient_sums: (("x", "grad", "coefficients", "parts"), {"SILU": True}),
    kernels._gradient: (("x", "grad", "coefficients", "slopes", "out"), {"SILU": True}),
}
LEARNED = ("parts", "weight", "bias", "scale", "offset", "coefficients", "statistics")
BETWEEN = {  # two passes
    kernels._coefficients: ((*LEARNED, "shift"), (*NUMBERS, "size", "scale_stride", "shift_stride"), ("eps",)),
    kernels._gradient_coefficients: (
        (*LEARNED, "slopes", "learned", "grad_scale", "grad_shift"),
        ("p", "c", "size", "splits", "scale_stride"),
        (),
    ),
}


def compiled(kernel: Any, signature: dict[str, str], constants: dict[str, Any], aligned: Iterable[str]) -> str:
    """The kernel in PTX."""
    source = ASTSource(
        fn=kernel,
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constexprs=constants,
        attrs={(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]


for kernel, (pointers, constants) in PASSES.items():
    signature = {name: "*bf16" if name in MAPS else "*fp32" for name in pointers} | dict.fromkeys(NUMBERS, "i32")
    tile = {"BP": kernels.GRADIENT_TILE // 128, "BC": 128}
    if "ld.global.v4.b32" not in compiled(kernel, signature, constants | tile, (*pointers, "p", "c", "chunk")):
        sys.exit(f"{kernel.__name__} does not read a map 16 bytes at a time")

for kernel, (pointers, whole, real) in BETWEEN.items():
    scaled = ("scale", "shift", "grad_scale", "grad_shift")  # in the dtype of the time's embedding
    signature = {name: "*bf16" if name in scaled else "*fp32" for name in pointers}
    signature |= dict.fromkeys(whole, "i32") | dict.fromkeys(real, "fp32")
    lanes = {"SCALED": True, "OFFSET": True, "BS": kernels.SPLITS_AT_A_TIME, "BG": 16}
    compiled(kernel, {name: signature[name] for name in kernel.arg_names if name in signature}, lanes, ("parts",))
