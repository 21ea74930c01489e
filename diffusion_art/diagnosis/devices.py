"""What computes here, and how fast it multiplies matrices."""

from __future__ import annotations

import re
import shutil
import time

import psutil
import torch

from diffusion_art.accel.regions import cannot_compile
from diffusion_art.devices import computes_in_bf16
from diffusion_art.diagnosis.finding import Finding
from diffusion_art.errors import first_line

SIDE = {"cpu": 1024, "cuda": 8192, "mps": 2048}  # of the matrices
ENOUGH_S = 0.25  # of multiplying; the fastest of the products counts
FULL = re.compile("out of memory|not enough memory|allocate memory|ALLOC_FAILED")  # in what torch says


def devices() -> list[Finding]:
    return [*_processor(), *_gpus(), *_compilers()]


def _processor() -> list[Finding]:
    memory = psutil.virtual_memory()
    cores = psutil.cpu_count(logical=False) or 0
    found = [
        Finding(
            "processor",
            f"{_model()}, {cores} cores, {psutil.cpu_count()} threads; torch uses {torch.get_num_threads()}",
        ),
        Finding("memory", f"{memory.total / 1e9:.0f} GB, {memory.available / 1e9:.0f} GB free"),
        _rates(torch.device("cpu")),
    ]
    if memory.available < 4e9:
        found.append(Finding("memory", "less than 4 GB free", "slow", "memory_limit_gb=2 splits the steps of a run"))
    return found


def _model() -> str:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123 -- a file of the kernel
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "CPU")
    except OSError:
        import platform

        return platform.processor() or "CPU"


def _gpus() -> list[Finding]:
    if torch.backends.mps.is_available():
        return [Finding("GPU", "Apple's, by MPS"), _rates(torch.device("mps"))]
    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi"):
            advice = "the driver is there: install the torch built for it, see https://pytorch.org/get-started"
            return [Finding("GPU", f"torch {torch.__version__} finds none", "slow", advice)]
        return [Finding("GPU", "none", "slow", "+experiment=quickstart is made for a CPU; `wikiart` needs a GPU")]
    return [finding for index in range(torch.cuda.device_count()) for finding in _gpu(index)]


def _gpu(index: int) -> list[Finding]:
    name, about = f"GPU {index}", torch.cuda.get_device_properties(index)
    built = f"CUDA {torch.version.cuda}, compute capability {about.major}.{about.minor}"
    try:
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError as error:  # to ask takes some of it
        return [Finding(name, f"{about.name}, {about.total_memory / 1e9:.0f} GB, {built}"), _not_measured(name, error)]
    found = [Finding(name, f"{about.name}, {total / 1e9:.0f} GB, {free / 1e9:.0f} GB free, {built}")]
    if free < total / 2:
        found.append(Finding(name, "more than half of its memory is taken", "slow", "see nvidia-smi"))
    return [*found, _rates(torch.device("cuda", index))]


def _rates(device: torch.device) -> Finding:
    """Products of two square matrices in fp32 and in bf16."""
    name = f"{device} multiplies"
    try:
        full = rate(device, torch.float32)
        if not computes_in_bf16(device):
            told, on_gpu = f"{_flops(full)} in float32; bfloat16 is emulated", device.type == "cuda"
            advice = "runs train in fp32 here: trainer.precision=auto sees to it" if on_gpu else ""
            return Finding(name, told, "slow" if on_gpu else "ok", advice)
        return Finding(name, f"{_flops(full)} in float32, {_flops(rate(device, torch.bfloat16))} in bfloat16")
    except RuntimeError as error:
        return _not_measured(name, error)


def _not_measured(name: str, error: RuntimeError) -> Finding:
    """Of a device that is full, most likely with what others compute there."""
    if FULL.search(str(error)):
        return Finding(name, "no memory was free to measure", "slow", "end what else computes there, or wait for it")
    return Finding(name, f"could not be measured: {first_line(error)}", "slow")


def rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest product."""
    side = SIDE[device.type]
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    best, spent = float("inf"), 0.0
    while spent < ENOUGH_S or best == float("inf"):
        began = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for it
        took = time.perf_counter() - began
        best, spent = min(best, took), spent + took
    return 2 * side**3 / best


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.1f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.0f} GFLOP/s"


def _compilers() -> list[Finding]:
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    lacking = cannot_compile(kind)
    if lacking is None:
        return [Finding("compiling", f"torch.compile has what it needs for {kind}")]
    state = "slow" if kind == "cuda" else "ok"
    advice = "without it runs train slower; compile=auto goes without" if kind == "cuda" else ""
    return [Finding("compiling", f"not possible: {lacking}", state, advice)]
