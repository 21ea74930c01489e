"""Recorded calls answer what the network answers, however many rows and tokens, and few of them are kept."""

from __future__ import annotations

import pytest
import torch

from diffusion_art.accel.graphs import PATIENCE, TOKENS, Captured, in_precision
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.serving.engine.engine import Engine, Job
from tests.accel.fake_cuda import fake_cuda
from tests.fakes import toy_model
from tests.models.backbones import all_random, inputs, small_jit, small_unet


class Recorder:
    """What CUDA's graphs do, on a CPU: a replay computes from where the inputs lie, into where the answer lies."""

    def __init__(self, fails: type[RuntimeError] | None = None) -> None:
        self.recorded = self.replayed = self.asked = 0
        self.fails = fails

    def __call__(self, call, device):
        self.asked += 1
        if self.fails:
            raise self.fails("operation not permitted when stream is capturing")
        self.recorded += 1
        answer = call()

        def replay():
            self.replayed += 1
            return answer.copy_(call())

        return replay


@pytest.fixture(params=[small_unet, small_jit])
def net(request):
    return all_random(request.param()).requires_grad_(False)


def test_rows_and_tokens_are_padded_and_answers_are_the_networks(net):
    recorder = Recorder()
    captured = Captured(net, sizes=(1, 4), record=recorder)
    calls = [inputs(rows, tokens=tokens) for rows, tokens in [(3, 8), (3, 8), (4, 16), (2, 24), (3, 8)]]
    calls[2][2].mask[1, 5:] = False
    answers = [captured(*call) for call in calls]
    for answer, call in zip(answers, calls, strict=True):  # each keeps its own, though they were made in one place
        torch.testing.assert_close(answer, net(*call), atol=1e-4, rtol=1e-4)
    assert recorder.recorded == 1  # at the second call: all of them are 4 rows of TOKENS tokens
    assert recorder.replayed == 4


def test_other_shapes_are_other_graphs_and_only_those_used_last_are_kept(net):
    recorder = Recorder()
    captured = Captured(net, sizes=(1, 2, 4), keep=2, record=recorder)
    for rows in (1, 2, 1, 2, 4, 1, 4):
        captured(*inputs(rows))
    assert recorder.recorded == 3
    captured(*inputs(2))  # the one that was used longest ago has gone
    assert recorder.recorded == 4
    captured(*inputs(1, tokens=TOKENS + 1))
    captured(*inputs(1, tokens=TOKENS + 1))
    assert recorder.recorded == 5


def test_more_rows_than_any_graph_run_as_they_are(net):
    recorder = Recorder()
    captured = Captured(net, sizes=(2,), record=recorder)
    for _ in range(3):
        assert torch.equal(captured(*inputs(3)), net(*inputs(3)))
    assert recorder.recorded == 0


def doubling(x_t, t, cond):
    return 2 * x_t


def test_what_cannot_be_recorded_runs_as_it_is_and_is_said_once(caplog):
    recorder = Recorder(fails=RuntimeError)
    captured = Captured(doubling, record=recorder)
    for _ in range(PATIENCE + 4):
        assert torch.equal(captured(*inputs(2)), doubling(*inputs(2)))
    assert recorder.asked == 1
    assert [record.message for record in caplog.records] == [
        "calls of 2 rows are not recorded, and run as they are: operation not permitted when stream is capturing"
    ]


def test_what_memory_did_not_suffice_for_is_recorded_later(caplog):
    recorder = Recorder(fails=torch.OutOfMemoryError)
    captured = Captured(doubling, record=recorder)
    for _ in range(2 + PATIENCE):
        assert torch.equal(captured(*inputs(2)), doubling(*inputs(2)))
    assert recorder.asked == 1
    captured(*inputs(2))
    assert recorder.asked == 2
    recorder.fails = None  # another process has gone
    for _ in range(PATIENCE + 2):
        torch.testing.assert_close(captured(*inputs(2)), doubling(*inputs(2)))
    assert (recorder.recorded, recorder.replayed) == (1, 2)
    assert len(caplog.records) == 1


def test_a_copy_in_bfloat16_answers_in_it_and_leaves_the_network(net):
    answer = in_precision(net, torch.bfloat16)(*inputs())
    assert answer.dtype == torch.bfloat16
    assert next(net.parameters()).dtype == torch.float32
    error = (answer.float() - net(*inputs())).norm() / net(*inputs()).norm()
    assert error < 0.05
    assert in_precision(net, None) is net


def test_an_engine_paints_the_same_with_it():
    model, recorder = toy_model(), Recorder()
    job = Job("a red house", seed=3, sampler=Euler(num_steps=6), guidance_scale=2.0)
    pictures = []
    for replayed in (False, True):
        engine = Engine(model, max_rows=4, precision="float32")
        if replayed:
            engine.use(Captured(model.backbone, record=recorder))
        engine.start()
        pictures.append(engine.submit([job])[0].result.result(60).astype(int))
        engine.stop()
    assert abs(pictures[0] - pictures[1]).max() <= 1
    assert recorder.replayed == 5


def test_inputs_that_keep_their_places_are_on_the_device():
    def network(x_t, t, cond):
        return x_t * t[:, None, None, None] + cond.pooled.sum() * cond.mask.sum() + cond.tokens.sum()

    with fake_cuda():
        captured = Captured(network, record=Recorder())
        x_t, t, cond = inputs(3)
        there = type(cond)(*(torch.empty_like(each, device="cuda") for each in vars(cond).values()))
        for _ in range(2):
            answer = captured(torch.empty_like(x_t, device="cuda"), torch.empty_like(t, device="cuda"), there)
    assert answer.device.type == "cuda"
    assert answer.shape == x_t.shape
