"""Our parts of the UNet give diffusers' own numbers, forwards and backwards."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D

from diffusion_art.devices import computes_in_bf16
from diffusion_art.models.unet import ResidualBlock, Upsample


def pair(channels: int = 12, out: int = 12) -> tuple[ResnetBlock2D, ResidualBlock]:
    torch.manual_seed(0)
    theirs = ResnetBlock2D(
        in_channels=channels, out_channels=out, temb_channels=10, groups=4, time_embedding_norm="scale_shift"
    )
    for norm in (theirs.norm1, theirs.norm2):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    return theirs, ResidualBlock(deepcopy(theirs))


def run(block, x, told=None):
    """The answer and all gradients; `told` is the time's embedding, or the size that a picture is to have."""
    inputs = {"x": x.clone().requires_grad_()}
    if isinstance(told, torch.Tensor):
        told = inputs["temb"] = told.clone().requires_grad_()
    y = block(inputs["x"], told)
    y.square().sum().backward()
    grads = {n: v.grad for n, v in inputs.items()} | {n: p.grad for n, p in block.named_parameters()}
    return {"y": y.detach()} | grads


def assert_as_near_to_the_truth(ours, theirs, x, told=None):
    """In bfloat16, by the answer and by every gradient in float32. A CPU that emulates bfloat16 adds up in it in
    places, once more for the one block than for the other.
    """
    rounding = 1e-3 if computes_in_bf16(torch.device("cpu")) else 2**-8
    truth = run(theirs, x, told)
    theirs.zero_grad()

    def errors(block):
        with torch.autocast("cpu", torch.bfloat16):
            found = run(block, x.bfloat16(), told)
        return {n: ((v.float() - truth[n]).norm() / truth[n].norm()).item() for n, v in found.items()}

    their_errors, our_errors = errors(theirs), errors(ours)
    for name, error in our_errors.items():
        assert error < 1.2 * their_errors[name] + rounding, name


@pytest.mark.parametrize("out", [12, 8], ids=["identity", "shortcut"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_diffusers_block(out, layout):
    theirs, ours = pair(out=out)
    x, temb = (3 + 2 * torch.randn(3, 12, 6, 6)).to(memory_format=layout), torch.randn(3, 10)
    expected, found = run(theirs, x, temb), run(ours, x, temb)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_in_bfloat16_it_is_as_near_to_the_truth_as_diffusers_block():
    theirs, ours = pair(32, 32)
    x, temb = torch.randn(4, 32, 8, 8), torch.randn(4, 10)
    assert_as_near_to_the_truth(ours, theirs, x, temb)


def test_channels_stay_last():
    _, ours = pair(out=8)
    x = torch.randn(3, 12, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    y = ours(x, torch.randn(3, 10))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("rows", [64, 1], ids=["a large batch", "one row"])
def test_upsampling_is_that_of_diffusers_and_keeps_channels_last(rows):
    torch.manual_seed(0)
    theirs = Upsample2D(4, use_conv=True, out_channels=4)
    ours = Upsample(deepcopy(theirs))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(rows, 4, 6, 6).to(memory_format=torch.channels_last)
    expected, found = run(theirs, x), run(ours, x)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found["y"], expected["y"], atol=1e-5, rtol=1e-5)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert found["y"].is_contiguous(memory_format=torch.channels_last)


def test_upsampling_in_bfloat16_is_as_near_to_the_truth_as_diffusers():
    torch.manual_seed(0)
    theirs = Upsample2D(32, use_conv=True, out_channels=32)
    ours = Upsample(deepcopy(theirs))
    x = torch.randn(8, 32, 8, 8).to(memory_format=torch.channels_last)
    assert_as_near_to_the_truth(ours, theirs, x)
