"""Attention: the formula and the fused kernel say the same."""

from __future__ import annotations

import pytest
import torch

from diffusion_art.models.attention import attention


@pytest.mark.parametrize("told", [7, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_the_plain_formula_of_attention_is_the_fused_one(masked, told):
    q, k, v = torch.randn(2, 3, 7, 8), torch.randn(2, 3, told, 8), torch.randn(2, 3, told, 8)
    bias = torch.zeros(2, 1, 1, told).masked_fill(torch.rand(2, 1, 1, told) > 0.5, float("-inf")) if masked else None
    if bias is not None:
        bias[..., -1] = 0
    plain = attention(q, k, v, bias, plain_queries=7)
    torch.testing.assert_close(plain, attention(q, k, v, bias, plain_queries=0))
