"""The parts of the UNet give diffusers' own numbers, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D

from diffusion_art.models.attention import Transformer
from diffusion_art.models.unet_levels import ResidualBlock, Upsample
from tests.models.backbones import small_unet


def residual(channels: int = 12, out: int = 12) -> tuple[ResnetBlock2D, ResidualBlock]:
    torch.manual_seed(0)
    theirs = ResnetBlock2D(
        in_channels=channels, out_channels=out, temb_channels=10, groups=4, eps=1e-5, time_embedding_norm="scale_shift"
    )
    for norm in (theirs.norm1, theirs.norm2):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    ours = ResidualBlock(channels, out, time_dim=10, groups=4)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def upsampling(channels: int) -> tuple[Upsample2D, Upsample]:
    torch.manual_seed(0)
    theirs, ours = Upsample2D(channels, use_conv=True, out_channels=channels), Upsample(channels)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def run(block, x, *told):
    """The answer and all gradients."""
    given = [x.clone().requires_grad_(), *(part.clone().requires_grad_() for part in told)]
    y = block(*given)
    y.square().sum().backward()
    grads = {f"input {n}": v.grad for n, v in enumerate(given)} | {n: p.grad for n, p in block.named_parameters()}
    return {"y": y.detach()} | grads


def assert_same(ours, theirs, *given, atol=2e-4):
    expected, found = run(theirs, *given), run(ours, *given)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    return found


def assert_as_near_to_the_truth(ours, theirs, x, *told):
    """In bfloat16, by the answer and by every gradient in float32."""
    truth = run(theirs, x, *told)
    theirs.zero_grad()

    def errors(block):
        with torch.autocast("cpu", torch.bfloat16):
            found = run(block, x.bfloat16(), *told)
        return {n: ((v.float() - truth[n]).norm() / truth[n].norm()).item() for n, v in found.items()}

    their_errors, our_errors = errors(theirs), errors(ours)
    for name, error in our_errors.items():
        assert error < 1.2 * their_errors[name] + 1e-3, name


@pytest.mark.parametrize("out", [12, 8], ids=["identity", "shortcut"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_residual_block_is_diffusers(out, layout):
    theirs, ours = residual(out=out)
    assert_same(ours, theirs, (3 + 2 * torch.randn(3, 12, 6, 6)).to(memory_format=layout), torch.randn(3, 10))


def test_in_bfloat16_it_is_as_near_to_the_truth_as_diffusers_block():
    theirs, ours = residual(32, 32)
    assert_as_near_to_the_truth(ours, theirs, torch.randn(4, 32, 8, 8), torch.randn(4, 10))


def test_channels_stay_last():
    _, ours = residual(out=8)
    x = torch.randn(3, 12, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    assert ours(x, torch.randn(3, 10)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("rows", [64, 1], ids=["a large batch", "one row"])
def test_upsampling_is_that_of_diffusers_and_keeps_channels_last(rows):
    theirs, ours = upsampling(4)
    x = torch.randn(rows, 4, 6, 6).to(memory_format=torch.channels_last)
    found = assert_same(ours, theirs, x, atol=1e-4)
    assert found["y"].is_contiguous(memory_format=torch.channels_last)


def test_upsampling_in_bfloat16_is_as_near_to_the_truth_as_diffusers():
    theirs, ours = upsampling(32)
    assert_as_near_to_the_truth(ours, theirs, torch.randn(8, 32, 8, 8).to(memory_format=torch.channels_last))


def test_a_transformer_is_diffusers():
    torch.manual_seed(0)
    theirs = Transformer2DModel(
        2, 8, in_channels=16, norm_num_groups=4, cross_attention_dim=6, use_linear_projection=True
    )
    ours = Transformer(16, heads=2, groups=4, told_dim=6)
    ours.load_state_dict(theirs.state_dict())
    x, tokens = torch.randn(3, 16, 4, 4), torch.randn(3, 5, 6)
    bias = torch.zeros(3, 1, 5)
    bias[1, :, 3:] = -10000.0
    found = ours(x, tokens, bias)
    wanted = theirs(x, tokens, encoder_attention_mask=bias, return_dict=False)[0]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attention_sides", [[4], [8], [8, 4]])
def test_an_untrained_network_is_the_one_that_diffusers_makes_of_the_same_seed(attention_sides):
    """To the bit but for the last convolution, which starts at zero: so runs begin as they always did."""
    torch.manual_seed(3)
    net = small_unet(attention_sides=attention_sides, layers_per_block=[1, 2], dropout=0.1)
    config = net.as_diffusers().config
    torch.manual_seed(3)
    theirs = UNet2DConditionModel.from_config(config).state_dict()
    assert net.net.state_dict().keys() == theirs.keys()
    for name, value in net.net.state_dict().items():
        assert torch.equal(value, theirs[name]) or (name.startswith("conv_out") and not value.any()), name
