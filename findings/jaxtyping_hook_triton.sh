#!/usr/bin/env bash
# jaxtyping 0.3.11, triton 3.8.0: jaxtyping's import hook, or its pytest option, checks the shapes of annotated functions. One
# would guess that it leaves a Triton kernel alone, which has no such annotation. It wraps every function of the module, below
# the decorators that are there, so `triton.jit` is handed jaxtyping's wrapper: it compiles the kernel's text with the globals
# of another module, and even `tl` is not defined. `typing.no_type_check` below `triton.jit` leaves the kernel as it was written.
# A kernel that Triton's cache holds already runs all the same, so this shows on a fresh machine. The kernels are compiled for
# a GPU of capability 9.0, which takes none.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jaxtyping==0.3.11 triton==3.8.0 numpy
for name in plain spared; do
    [ $name = spared ] && spare=$'\n@no_type_check' || spare=""
    cat >"$work/$name.py" <<PY
from typing import no_type_check

import triton
import triton.language as tl


@triton.jit$spare
def twice(x, out, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, 2 * tl.load(x + at))
PY
done
cat >"$work/compile_it.py" <<'PY'
import importlib
import sys
from contextlib import nullcontext

import triton
from jaxtyping import install_import_hook
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

name, hooked = sys.argv[1], sys.argv[2] == "hooked"
with install_import_hook(name, None) if hooked else nullcontext():
    kernel = importlib.import_module(name).twice
source = ASTSource(fn=kernel, signature={"x": "*fp32", "out": "*fp32", "N": "constexpr"}, constexprs={"N": 32})
try:
    triton.compile(source, target=GPUTarget("cuda", 90, 32))
except Exception as error:
    print("raised:", next(line for line in str(error).splitlines() if "not defined" in line).strip())
else:
    print("compiled")
PY
cd "$work"
for case in "plain alone compiled" "plain hooked raised" "spared hooked compiled"; do
    set -- $case
    said=$(TRITON_CACHE_DIR="$work/cache-$1-$2" "$work/venv/bin/python" compile_it.py "$1" "$2")
    echo "$1, $2: $said"
    [ "${said%%:*}" = "$3" ] || { echo "it is not so any more: $said"; exit 1; }
done
