"""The average of the weights: which, how fast, and the one door."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffusion_art.errors import UserError
from diffusion_art.training.averages.ema import Ema


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    return net


def test_follows_the_formula_and_shadows_trainable_weights_only():
    net = _net()
    ema = Ema(net, decay=0.9, warmup=False)
    assert sorted(ema.shadow) == ["1.bias", "1.weight"]
    expected = net[1].weight.detach().clone()
    for _ in range(5):
        with torch.no_grad():
            net[1].weight.add_(1.0)
        ema.update()
        expected = 0.9 * expected + 0.1 * net[1].weight.detach()
    torch.testing.assert_close(ema.shadow["1.weight"], expected)


def test_warm_up_forgets_the_start():
    net = _net()
    slow, quick = Ema(net, decay=0.9999, warmup=False), Ema(net, decay=0.9999, warmup=True)
    with torch.no_grad():
        net[1].bias.fill_(7.0)
    for _ in range(50):
        slow.update()
        quick.update()
    assert (quick.shadow["1.bias"] - 7.0).abs().max() < 0.01
    assert (slow.shadow["1.bias"] - 7.0).abs().max() > 5.0


def test_decay_zero_is_the_weights_themselves():
    net = _net()
    ema = Ema(net, decay=0.0)
    with torch.no_grad():
        net[1].weight.mul_(3.0)
    ema.update()
    assert torch.equal(ema.shadow["1.weight"], net[1].weight)


def _fail_inside(ema: Ema) -> None:
    with ema.averaged():
        raise ZeroDivisionError


def test_the_door_restores_to_the_bit_even_after_an_error():
    net = _net()
    ema = Ema(net, decay=0.5, warmup=False)
    with torch.no_grad():
        net[1].weight.add_(torch.rand_like(net[1].weight))
    ema.update()
    raw = net[1].weight.detach().clone()
    with ema.averaged():
        assert torch.equal(net[1].weight, ema.shadow["1.weight"])
        assert not torch.equal(net[1].weight, raw)
    assert torch.equal(net[1].weight, raw)
    with pytest.raises(ZeroDivisionError):
        _fail_inside(ema)
    assert torch.equal(net[1].weight, raw)


def test_the_door_does_not_open_twice():
    ema = Ema(_net())
    with ema.averaged(), pytest.raises(RuntimeError, match="already"), ema.averaged():
        pass


def test_state_round_trip_and_a_model_it_does_not_fit():
    net = _net()
    ema = Ema(net, decay=0.5)
    with torch.no_grad():
        net[1].weight.add_(1.0)
    ema.update()
    other = Ema(_net(), decay=0.5)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 1
    assert torch.equal(other.shadow["1.weight"], ema.shadow["1.weight"])
    with pytest.raises(UserError, match=r"another model: 2 are missing \(such as 1\.bias\) and 1 unknown"):
        other.load_state_dict({"ema_updates": 0, "ema": {"else": torch.zeros(1)}})
    wider = {"1.weight": torch.zeros(2, 5), "1.bias": torch.zeros(2)}
    with pytest.raises(UserError, match=r"another model: 1\.weight has shape \[2, 5\], and here it is \[2, 4\]"):
        other.load_state_dict({"ema_updates": 0, "ema": wider})


def _walk(net: nn.Module, *averages: Ema, updates: int, seed: int = 0) -> list[torch.Tensor]:
    """Moves the weights at random; returns the path of one of them."""
    source, path = torch.Generator().manual_seed(seed), []
    for _ in range(updates):
        with torch.no_grad():
            net[1].weight.add_(torch.randn(2, 4, generator=source))
        path.append(net[1].weight.detach().clone())
        for ema in averages:
            ema.update()
    return path


def test_several_at_once_are_what_each_is_alone_and_the_first_is_in_use():
    net = _net()
    both = Ema(net, decay=[0.9, 0.5], sigma_rel=[0.1])
    alone = [Ema(net, decay=0.9), Ema(net, decay=0.5), Ema(net, decay=[], sigma_rel=[0.1])]
    _walk(net, both, *alone, updates=30)
    assert list(both.averages) == ["decay_0.9", "decay_0.5", "sigma_rel_0.1"]
    for name, single in zip(both.averages, alone, strict=True):
        assert torch.equal(both.averages[name]["1.weight"], single.shadow["1.weight"])
    assert both.shadow is both.averages["decay_0.9"]


def test_a_width_is_a_share_of_the_run_and_forgets_the_start_at_once():
    net = _net()
    ema = Ema(net, decay=[], sigma_rel=[0.1])
    path = torch.stack(_walk(net, ema, updates=60)).double()
    power = (torch.arange(61, dtype=torch.float64) ** 7.937203937601805).diff()  # gamma + 1 of sigma_rel 0.1
    expected = torch.tensordot(power / power.sum(), path, 1).float()
    torch.testing.assert_close(ema.shadow["1.weight"], expected)


def test_averages_go_on_by_name_and_a_lost_past_is_not_made_up():
    net = _net()
    first = Ema(net, decay=[0.9, 0.5], sigma_rel=[0.1])
    _walk(net, first, updates=5)
    saved = first.state_dict()
    swapped = Ema(_net(), decay=[0.5, 0.9])
    swapped.load_state_dict(saved)
    for name in swapped.averages:
        assert torch.equal(swapped.averages[name]["1.weight"], first.averages[name]["1.weight"])
    other = Ema(_net(), decay=0.99)
    other.load_state_dict(saved)
    assert torch.equal(other.shadow["1.weight"], first.shadow["1.weight"])
    with pytest.raises(
        UserError, match=r"without the average sigma_rel_0\.05.*has decay_0\.5, sigma_rel_0\.1, decay_0\.9"
    ):
        Ema(_net(), sigma_rel=[0.05]).load_state_dict(saved)
    with pytest.raises(UserError, match=r"without the average sigma_rel_0\.05"):
        Ema(_net(), decay=[], sigma_rel=[0.05]).load_state_dict(saved)
    Ema(_net(), decay=[], sigma_rel=[0.1]).load_state_dict(saved)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"decay": 1.0}, "ema.decay=1.0"),
        ({"decay": []}, "no average"),
        ({"decay": [0.9, 0.9]}, "twice"),
        ({"sigma_rel": [0.4]}, "sigma_rel=0.4"),
    ],
)
def test_what_is_no_average_is_refused(asked, words):
    with pytest.raises(UserError, match=words):
        Ema(_net(), **asked)
