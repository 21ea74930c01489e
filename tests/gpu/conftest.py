"""Each test runs on the GPU, marked `gpu`, and once more on the CPU: how it is tried where there is no GPU."""

from __future__ import annotations

import pytest
import torch

NONE = "there is no CUDA device here; `make test-gpu` runs this where there is one"
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason=NONE)]


@pytest.fixture(params=[pytest.param("cuda", marks=ON_GPU), pytest.param("cpu", marks=pytest.mark.slow)])
def device(request) -> str:
    return request.param


@pytest.fixture
def full_float32():
    """No TF32 in convolutions and products, which keeps 10 bits of a factor."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]
