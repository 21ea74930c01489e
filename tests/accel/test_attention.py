"""Attention: the formula and the fused kernel say the same, and each goes where it is the faster."""

from __future__ import annotations

import pytest
import torch

from diffusion_art.accel import layers, switch


@pytest.mark.parametrize("told", [7, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_the_formula_is_the_fused_kernel(masked, told):
    q, k, v = torch.randn(2, 3, 7, 8), torch.randn(2, 3, told, 8), torch.randn(2, 3, told, 8)
    bias = torch.zeros(2, 1, 1, told).masked_fill(torch.rand(2, 1, 1, told) > 0.5, float("-inf")) if masked else None
    if bias is not None:
        bias[..., -1] = 0
    torch.testing.assert_close(layers.by_formula(q, k, v, bias), layers.plain_attention(q, k, v, bias))


@pytest.mark.parametrize(("queries", "alone", "joint"), [(256, True, True), (257, False, True), (513, False, False)])
def test_few_queries_go_by_the_formula_unless_it_is_switched_off(queries, alone, joint, monkeypatch):
    q = torch.randn(1, 1, queries, 4)
    by_formula, plain = layers.by_formula(q, q, q, None), layers.plain_attention(q, q, q, None)
    assert not torch.equal(by_formula, plain)
    assert torch.equal(layers.attention(q, q, q, None), by_formula if alone else plain)
    assert torch.equal(layers.attention(q, q, q, None, few=layers.FEW_JOINT), by_formula if joint else plain)
    monkeypatch.setattr(switch, "ON", False)
    assert torch.equal(layers.attention(q, q, q, None, few=layers.FEW_JOINT), plain)
