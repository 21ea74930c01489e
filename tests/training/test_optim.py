"""Learning-rate schedules by their numbers, and who is spared weight decay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from diffusion_art.accel.muon_stacks import grouped, move_by_shape, move_one_by_one, move_together
from diffusion_art.accel.orthogonalise import orthogonalise
from diffusion_art.errors import UserError
from diffusion_art.models.jit import JiT
from diffusion_art.models.text_encoder import OpenClipScratch
from diffusion_art.models.unet import UNet
from diffusion_art.training.averages.ema import Ema
from diffusion_art.training.muon import Muon
from diffusion_art.training.optim import (
    Constant,
    Cosine,
    Plateau,
    WarmupStableDecay,
    attach,
    build_optimizer,
    clip,
    clip_gradients,
    parameter_groups,
    renew_settings,
    scale_in_step,
)
from tests.waiting import NoWaiting, a_gpu, on_fake_cuda


@pytest.mark.parametrize("limit", [1e-3, 5.0, 1e3, float("inf")])
@pytest.mark.parametrize("factor", [0.0, 1.0, float("inf"), float("nan")])
def test_clipping_is_torchs_to_the_bit(limit, factor):
    def gradients(clip, limit=limit):
        parameters = [nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(2))]
        for parameter in parameters[:2]:  # the last has none
            parameter.grad = factor * torch.arange(1.0, 1 + parameter.numel()).view_as(parameter)
        norm = clip(iter(parameters), limit)
        return [norm, *(parameter.grad for parameter in parameters[:2])]

    for most in (limit, float(gradients(clip_gradients)[0])):  # the norm itself is a hair above what torch lets pass
        for ours, theirs in zip(gradients(clip_gradients, most), gradients(nn.utils.clip_grad_norm_, most)):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_constant_warms_up_linearly_and_stays():
    schedule = Constant(warmup_steps=4)
    assert [schedule(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_cosine_passes_its_landmarks():
    schedule = Cosine(total_steps=110, warmup_steps=10, floor=0.1)
    assert schedule(10) == pytest.approx(1.0)
    assert schedule(60) == pytest.approx(0.55)
    assert schedule(110) == pytest.approx(0.1)
    assert schedule(500) == pytest.approx(0.1)


@pytest.mark.parametrize(("shape", "half_way"), [("1-sqrt", 1 - 0.5**0.5), ("linear", 0.5)])
def test_wsd_passes_its_landmarks(shape, half_way):
    schedule = WarmupStableDecay(total_steps=1000, warmup_steps=9, decay_fraction=0.2, shape=shape, floor=0.1)
    assert schedule(0) == pytest.approx(0.1)
    assert {schedule(step) for step in range(9, 801)} == {1.0}
    assert schedule(900) == pytest.approx(0.1 + 0.9 * half_way)
    assert schedule(1000) == schedule(5000) == pytest.approx(0.1)
    falling = [schedule(step) for step in range(800, 1001)]
    assert falling == sorted(falling, reverse=True)


def test_wsds_stable_part_does_not_know_the_length_of_the_run():
    short, long = (WarmupStableDecay(total_steps=steps, warmup_steps=0) for steps in (100, 1000))
    assert [short(step) for step in range(81)] == [long(step) for step in range(81)]
    for wrong in ({"shape": "cosine"}, {"decay_fraction": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            WarmupStableDecay(total_steps=10, warmup_steps=0, **wrong)


def _scheduled(schedule: Constant, lr: float = 1.0) -> tuple[torch.optim.SGD, object]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    return optimizer, attach(schedule, optimizer)


def _rates(optimizer, scheduler, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_a_resumed_run_has_the_rate_and_the_length_of_its_own_config():
    cut = _scheduled(WarmupStableDecay(total_steps=20, warmup_steps=3))
    before = _rates(*cut, steps=10)
    whole = _rates(*_scheduled(WarmupStableDecay(total_steps=40, warmup_steps=3)), steps=40)
    states = [part.state_dict() for part in cut]
    longer = _scheduled(WarmupStableDecay(total_steps=40, warmup_steps=0))
    halved = _scheduled(Constant(warmup_steps=0), lr=0.5)
    for optimizer, scheduler in (longer, halved):
        optimizer.load_state_dict(states[0])
        scheduler.load_state_dict(states[1])
    assert before + _rates(*longer, steps=30) == whole
    assert _rates(*halved, steps=3) == [0.5, 0.5, 0.5]


def test_a_prolonged_run_follows_its_new_schedule_from_the_first_step_on():
    short, long = (Cosine(total_steps=steps, warmup_steps=2) for steps in (10, 40))
    for begun in (short, Plateau(warmup_steps=2)):
        cut = _scheduled(begun)
        _rates(*cut, steps=9)
        states = [part.state_dict() for part in cut]
        prolonged = _scheduled(long, lr=0.5)
        for part, state in zip(prolonged, states, strict=True):
            part.load_state_dict(state)
        assert _rates(*prolonged, steps=3) == [0.5 * long(step) for step in (9, 10, 11)]


def test_a_plateau_found_after_the_last_step_counts_from_the_same_step_on_in_a_resumed_run():
    schedule = Plateau(warmup_steps=0, patience=0, factor=0.5)
    cut = _scheduled(schedule)
    _rates(*cut, steps=3)
    for loss in (1.0, 2.0):
        schedule.observe(loss)
    states = [part.state_dict() for part in cut]
    resumed = _scheduled(Plateau(warmup_steps=0, patience=0, factor=0.5))
    for part, state in zip(resumed, states, strict=True):
        part.load_state_dict(state)
    assert _rates(*resumed, steps=2) == _rates(*cut, steps=2) == [1.0, 0.5]


def test_plateau_agrees_with_torch():
    losses = [1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    ours = Plateau(warmup_steps=0, patience=2, factor=0.5)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2, factor=0.5)
    for loss in losses:
        ours.observe(loss)
        theirs.step(loss)
        assert ours(10_000) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert ours.scale < 1.0


def test_plateau_memory_is_saved_with_the_scheduler():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    first = Plateau(warmup_steps=0, patience=0, factor=0.5)
    for loss in (1.0, 2.0, 2.0):
        first.observe(loss)
    state = attach(first, optimizer).state_dict()
    second = Plateau(warmup_steps=0, patience=0, factor=0.5)
    attach(second, optimizer).load_state_dict(state)
    assert (second.scale, second.best) == (0.25, 1.0)


def test_weight_decay_spares_vectors_and_frozen_weights_are_left_out():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 4))
    net[2].requires_grad_(False)
    optimizer = build_optimizer(torch.optim.AdamW, net, weight_decay=0.1)
    decayed, spared = optimizer.param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3)]
    assert decayed["weight_decay"] == 0.1
    assert len(spared["params"]) == 3
    assert spared["weight_decay"] == 0.0


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 24, 24), (2, 16, 144), (2, 160, 12)])
def test_orthogonalised_matrices_keep_their_directions_and_lose_their_scales(shape):
    torch.manual_seed(0)
    spread = torch.logspace(0, -1.5, min(shape[1:]))
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    (out,) = orthogonalise(7.0 * u @ torch.diag_embed(spread.expand(shape[0], -1)) @ vh, dtype=torch.float32)
    values = torch.linalg.svdvals(out)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    aligned = torch.diagonal(u.mT @ out @ vh.mT, dim1=1, dim2=2)
    torch.testing.assert_close(aligned, values.new_ones(aligned.shape), atol=0.4, rtol=0)


@pytest.mark.parametrize("shape", [(3, 16, 144), (2, 200, 20), (4, 24, 24), (2, 30, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_iterating_on_the_gram_matrix_is_the_same_iteration(shape, dtype, monkeypatch):
    """Also where there are directions that the matrix does not have at all."""
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    matrices[0] = matrices[0, :1, :1] * torch.ones(shape[1:])  # of rank one
    (found,) = orthogonalise(matrices, dtype=dtype)
    monkeypatch.setattr("diffusion_art.accel.orthogonalise.GRAM_FROM", float("inf"))
    monkeypatch.setattr("diffusion_art.accel.orthogonalise.GRAM_BELOW", 0)
    (expected,) = orthogonalise(matrices, dtype=torch.float32)
    assert float((found - expected).norm() / expected.norm()) < (1e-4 if dtype == torch.float32 else 0.01)


def test_stacks_of_many_shapes_are_each_orthogonalised_as_alone():
    torch.manual_seed(0)
    shapes = [(3, 16, 144), (2, 144, 16), (1, 16, 20), (2, 300, 300), (1, 40, 16), (2, 16, 144), (1, 24, 24)]
    stacks = [torch.randn(shape) for shape in shapes]
    stacks[2].zero_()
    for shape, together, stack in zip(shapes, orthogonalise(*stacks), stacks, strict=True):
        (alone,) = orthogonalise(stack)
        assert together.shape == shape
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert orthogonalise() == []


def _groups(net: nn.Module) -> dict[str, list[str]]:
    names = {id(p): name for name, p in net.named_parameters()}
    found = parameter_groups(net, weight_decay=0.1)
    return {f"{group['hidden']} {group['weight_decay']}": [names[id(p)] for p in group["params"]] for group in found}


class Declaring(nn.Module):
    """Its parts have names that say nothing, or the wrong thing."""

    outer = ("words", "ends.first", "table")

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(2, 3))
        self.words = nn.Embedding(5, 4)
        self.conv_in = nn.Linear(4, 4)
        self.ends = nn.ModuleDict({"first": nn.Conv2d(3, 4, 3), "last": nn.Conv2d(4, 3, 3)})


def test_a_network_declares_which_of_its_matrices_are_no_muons():
    assert _groups(nn.Sequential(Declaring())) == {
        "True 0.1": ["0.conv_in.weight", "0.ends.last.weight"],
        "False 0.1": ["0.table", "0.words.weight", "0.ends.first.weight"],
        "False 0.0": ["0.conv_in.bias", "0.ends.first.bias", "0.ends.last.bias"],
    }


def test_the_networks_here_declare_their_first_and_last_layers_and_tables():
    sizes = {"channels": 3, "sample_size": 8, "cross_attention_dim": 16, "pooled_dim": 16}
    text = {"width": 16, "layers": 1, "heads": 2, "vocab_size": 640}
    blocks = {"block_channels": (8, 16), "attention_sides": (4,), "head_channels": 8, "norm_groups": 4}
    parts = {
        "unet": UNet(**sizes, **blocks),
        "jit": JiT(**sizes, width=32, depth=1, head_channels=16, bottleneck=8, context_from=0),
        "text": OpenClipScratch(**text),
    }
    net = nn.ModuleDict(parts)
    shared = ("embedding", "conv_in", "conv_out", "to_patches")  # what was taken for outer by its name, before
    matrices = [name for name, p in net.named_parameters() if p.ndim >= 2]
    outer = [name for name in matrices if any(word in name for word in shared)]
    assert len(outer) == 17
    assert _groups(net) == {
        "True 0.1": [name for name in matrices if name not in outer],
        "False 0.1": outer,
        "False 0.0": [name for name, p in net.named_parameters() if p.ndim < 2],
    }


def test_muons_adamw_half_is_torchs_adamw():
    torch.manual_seed(0)
    start = torch.randn(4, 3)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = [
        Muon([ours], lr=0.1, weight_decay=0.1),
        torch.optim.AdamW([theirs], lr=0.1, betas=(0.9, 0.99), weight_decay=0.1, fused=True),
    ]
    for _ in range(5):
        for p, optimizer in zip((ours, theirs), optimizers, strict=True):
            p.grad = p.detach() ** 2
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muons_hidden_half_is_torchs_muon():
    """A second opinion, within the bfloat16 in which torch always orthogonalises."""
    for shape in ((16, 40), (40, 16), (24, 24), (16, 144), (144, 16)):
        torch.manual_seed(0)
        start, target = torch.randn(shape), torch.randn(shape)
        ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
        optimizers = [
            Muon([{"params": [ours], "hidden": True}], lr=0.02, weight_decay=0.1),
            torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        ]
        for _ in range(8):
            for p, optimizer in zip((ours, theirs), optimizers, strict=True):
                p.grad = p.detach() - target
                optimizer.step()
        moved, expected = ours.detach() - start, theirs.detach() - start
        assert float((moved - expected).norm() / expected.norm()) < 0.02


def test_muon_moves_a_kernel_alike_in_either_memory_format():
    torch.manual_seed(0)
    start, gradients = torch.randn(8, 4, 3, 3), torch.randn(3, 8, 4, 3, 3)
    ends = []
    for layout in (torch.contiguous_format, torch.channels_last):
        p = nn.Parameter(start.clone().to(memory_format=layout))
        optimizer = Muon([{"params": [p], "hidden": True}], lr=0.05, weight_decay=0.1)
        for gradient in gradients:
            p.grad = gradient.clone().to(memory_format=layout)
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends, atol=0.02, rtol=0.02)  # bfloat16 inside


def test_muon_learns_and_resumes_exactly():
    def run(steps: int, state: dict | None = None, weight: torch.Tensor | None = None):
        torch.manual_seed(0)
        target, p = torch.randn(6, 5), nn.Parameter(torch.zeros(6, 5) if weight is None else weight.clone())
        optimizer = Muon([{"params": [p], "hidden": True}], lr=0.05)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            p.grad = p.detach() - target
            optimizer.step()
        return p.detach(), optimizer.state_dict(), float((p.detach() - target).norm() / target.norm())

    whole, _, distance = run(120)
    assert distance < 0.1
    half, state, _ = run(60)
    rest, _, _ = run(60, state, half)
    assert torch.equal(whole, rest)


# ---------------------------------------------------------------------- as a CUDA device steps


SHAPES = [(16, 40), (40, 16), (24, 24), (16, 36), (20, 44), (8, 4, 3, 3), (4, 8, 3, 3), (36, 8), (16, 40)]


def _matrices(seed: int) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(shape).flatten(1) for shape in SHAPES]


@pytest.mark.parametrize("launches", [0.0, 1e4, 1e9])  # nothing padded, some, all in one stack
def test_padded_stacks_move_weights_as_each_shape_alone_does(launches, monkeypatch):
    monkeypatch.setattr("diffusion_art.accel.muon_stacks.LAUNCHES", launches)
    grouped.cache_clear()
    settings = {"lr": 0.1, "weight_decay": 0.3, "steps": 5, "dtype": torch.float32}
    together, alone = _matrices(0), _matrices(0)
    move_together(together, _matrices(1), **settings)
    move_by_shape(alone, _matrices(1), **settings)
    published = _matrices(0)
    move_one_by_one(published, _matrices(1), **settings)
    for ours, theirs in zip(published, alone, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    held = _matrices(0)
    move_together(held, _matrices(1), **settings, found_inf=torch.tensor(0.0))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(held, together, strict=True))
    grouped.cache_clear()


def test_a_step_that_is_held_back_moves_no_weight_whatever_its_gradients():
    weights, updates = _matrices(0), _matrices(1)
    updates[2].fill_(float("nan"))
    updates[5][0, 0] = float("inf")
    settings = {"lr": 0.1, "weight_decay": 0.3, "steps": 5, "dtype": torch.bfloat16}
    move_together(weights, updates, **settings, found_inf=torch.tensor(1.0))
    assert all(torch.equal(ours, before) for ours, before in zip(weights, _matrices(0), strict=True))


@pytest.mark.parametrize("limit", [0.5, 1e3, float("inf")])
def test_gradients_clipped_in_the_step_take_the_same_step(limit):
    def stepped(make, clip):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
        optimizer = build_optimizer(make, net)
        for factor in (1.0, 20.0, 3.0):
            for p in net.parameters():
                p.grad = factor * torch.arange(1.0, 1 + p.numel()).view_as(p).sin()
            norm = clip(optimizer, list(net.parameters()), limit)
            optimizer.step()
        return norm, *net.parameters()

    for make in (partial(torch.optim.AdamW, lr=0.1, fused=True), partial(Muon, lr=0.1)):
        before = stepped(make, lambda _, parameters, limit: clip_gradients(parameters, limit))
        for ours, theirs in zip(stepped(make, scale_in_step), before, strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-3 if make.func is Muon else 1e-6, rtol=1e-5)


def test_a_norm_that_is_not_finite_holds_back_this_step_and_all_after_it():
    p = nn.Parameter(torch.ones(4))
    optimizer = torch.optim.AdamW([p], lr=0.1, fused=True)
    optimizer.found_inf = torch.zeros(())
    ends = []
    for value in (1.0, float("inf"), 1.0):
        p.grad = torch.full((4,), value)
        scale_in_step(optimizer, [p], 1.0)
        optimizer.step()
        ends.append(p.detach().clone())
    assert not torch.equal(ends[0], torch.ones(4))
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])
    assert float(optimizer.state[p]["step"]) == 1


@pytest.fixture
def unet_base():
    """The weights of `unet_base` at 128 px on a pretended CUDA device, with gradients."""
    with torch.device("meta"):
        settings = {"block_channels": [128, 256, 384, 512], "layers_per_block": 2, "attention_sides": [16, 8]}
        sizes = {"channels": 12, "sample_size": 64, "cross_attention_dim": 512, "pooled_dim": 512}
        net = UNet(**settings, **sizes, head_channels=64, norm_groups=32)
    with a_gpu():
        for p in on_fake_cuda(net).parameters():
            p.grad = torch.empty_like(p)
        yield net


def _launched(step: Callable[[], object]) -> Counter[str]:
    """What one step sends to the device, but for the making of states."""
    with NoWaiting() as mode:
        step()
    return Counter({name: count for name, count in mode.sent.items() if not name.startswith("zeros")})


def test_muon_sends_a_gpu_few_products_and_waits_for_none(unet_base):
    optimizer = build_optimizer(Muon, unet_base, weight_decay=0.01)
    optimizer.found_inf = torch.zeros((), device="cuda")

    def step() -> None:
        clip(optimizer, 1.0)
        optimizer.step()

    sent = _launched(step)
    assert sent["bmm"] + sent["baddbmm"] <= 200  # 585 with a stack for each of 39 shapes
    assert sum(sent.values()) < 450  # 1482 before
    assert sent["_fused_adamw_"] == 2


def test_adamw_is_clipped_stepped_and_averaged_in_a_handful_of_passes(unet_base):
    optimizer = build_optimizer(partial(torch.optim.AdamW, lr=1e-4, fused=True), unet_base)
    optimizer.found_inf = torch.zeros((), device="cuda")
    ema = Ema(unet_base)
    assert all(ema.shadow[name].stride() == p.stride() for name, p in unet_base.named_parameters())

    def step() -> None:
        clip(optimizer, 1.0)
        optimizer.step()
        ema.update()

    sent = _launched(step)
    passes = {"_foreach_norm": 1, "_fused_adamw_": 3, "_foreach_lerp_": 1}
    assert {name: sent[name] for name in passes} == passes
    assert sent["_foreach_mul_"] == 0  # gradients are scaled by the optimiser
    assert sum(sent.values()) < 30


class Learning(torch.optim.SGD):
    """As Prodigy and schedule-free optimisers do, it keeps what it has learned among the settings of its groups."""

    def __init__(self, params, *, lr=0.1, **settings):
        super().__init__(params, lr=lr, **settings)
        self.defaults["learned"] = 0
        for group in self.param_groups:
            group["learned"] = 0


def test_a_run_that_goes_on_has_the_settings_of_its_config_and_keeps_what_its_optimiser_has_learned():
    before, now = (Learning(parameter_groups(nn.Linear(2, 2), weight_decay=decay)) for decay in (0.0, 0.5))
    before.param_groups[0]["learned"] = 7
    state = before.state_dict()
    renew_settings([state], now)
    assert state["param_groups"][0]["weight_decay"] == 0.5
    assert state["param_groups"][0]["learned"] == 7


def test_settings_of_another_optimiser_are_named_with_what_drops_them():
    factory = partial(torch.optim.SGD, lr=0.1, betas=(0.9, 0.99), eps=1e-8)
    with pytest.raises(UserError, match=r"SGD does not take optim.betas, optim.eps: .* ~optim.betas ~optim.eps$"):
        build_optimizer(factory, nn.Linear(2, 2))
