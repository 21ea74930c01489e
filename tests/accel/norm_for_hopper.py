"""The kernels compiled for compute capability 9.0, which needs no GPU: `python -m tests.accel.norm_for_hopper`."""

from __future__ import annotations

import sys

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

for kernel, (pointers, constants) in PASSES.items():
    signature = {name: "*bf16" if name in MAPS else "*fp32" for name in pointers} | dict.fromkeys(NUMBERS, "i32")
    constants = constants | {"BP": kernels.GRADIENT_TILE // 128, "BC": 128}
    aligned = [kernel.arg_names.index(name) for name in (*pointers, "p", "c", "chunk")]
    source = ASTSource(
        fn=kernel,
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constexprs=constants,
        attrs={(place,): [["tt.divisibility", 16]] for place in aligned},
    )
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    if "ld.global.v4.b32" not in ptx:
        sys.exit(f"{kernel.__name__} does not read a map 16 bytes at a time")
