"""Pictures painted in company are those painted alone, whoever comes, goes, cancels or fails meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffusion_art.accel.cores import leave_cores
from diffusion_art.diffusion.samplers.base import Loop
from diffusion_art.diffusion.samplers.consistency import Consistency
from diffusion_art.diffusion.samplers.ddim import DDIM, Ancestral
from diffusion_art.diffusion.samplers.dpm_solver import DPMSolverPP2M, UniPC
from diffusion_art.diffusion.samplers.euler import Euler, Heun
from diffusion_art.diffusion.samplers.stochastic_heun import StochasticHeun
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.serving.engine.engine import Busy, Engine, Job, Stopping
from diffusion_art.serving.engine.jobs import bucket_of, buckets, choose, deadline
from diffusion_art.tensors import to_uint8
from tests.fakes import toy_model

SAMPLERS = [
    DDIM(num_steps=5),
    DDIM(num_steps=4, eta=0.7),
    Ancestral(num_steps=6),
    Euler(num_steps=3, spacing="karras"),
    Heun(num_steps=4),
    DPMSolverPP2M(num_steps=7, spacing="log_snr"),
    UniPC(times=(1.0, 0.8, 0.45, 0.2, 0.05, 0.0)),
]
JOBS = [
    Job(f"a picture of {place}", seed=100 + place, sampler=sampler, guidance_scale=scale, **more)
    for place, (sampler, scale, more) in enumerate(
        [
            (SAMPLERS[0], 3.0, {}),
            (SAMPLERS[1], 1.0, {}),
            (SAMPLERS[2], 2.0, {"negative_prompt": "grey"}),
            (SAMPLERS[3], 1.0, {}),
            (SAMPLERS[4], 4.0, {"interval": (0.2, 0.8)}),
            (SAMPLERS[5], 2.5, {"rescale": 0.7}),
            (SAMPLERS[6], 5.0, {"threshold": 0.9}),
        ]
    )
]

ALONE = Job("stirred", seed=5, sampler=StochasticHeun(num_steps=4, s_churn=2.0), guidance_scale=3.0, threshold=0.9)
FEW_STEPS = Job("of a student", seed=9, sampler=Consistency(num_steps=4))


@pytest.fixture
def model() -> TextToImage:
    return toy_model()


@pytest.fixture
def engine(model) -> Iterator[Engine]:
    engine = Engine(model, max_rows=8, max_jobs=14, precision="fp32")
    engine.start()
    yield engine
    engine.stop(drain_s=10)
    assert not engine.alive


def _alone(model: TextToImage, job: Job) -> np.ndarray:
    """What `sample` paints."""
    images = model.generate(
        [job.prompt],
        seeds=[job.seed],
        sampler=job.sampler,
        guidance_scale=job.guidance_scale,
        negative_prompts=[job.negative_prompt],
        interval=job.interval,
        rescale=job.rescale,
        threshold=job.threshold,
        size=job.size,
    )
    return to_uint8(images[0])


def _results(tickets) -> list[np.ndarray]:
    return [ticket.result.result(timeout=60) for ticket in tickets]


@pytest.mark.parametrize("job", [*JOBS, FEW_STEPS, ALONE], ids=lambda job: job.sampler.name)
def test_the_engine_paints_what_sample_paints(engine, model, job):
    (picture,) = _results(engine.submit([job]))
    assert picture.shape == (16, 16, 3)
    assert np.abs(picture.astype(int) - _alone(model, job)).max() <= 1


def test_a_picture_does_not_depend_on_its_company(engine, model):
    """To a grey level: kernels may sum in another order for another batch size."""
    first = engine.submit(JOBS)
    second = engine.submit(list(reversed(JOBS)))
    crowd = _results(first), list(reversed(_results(second)))
    for job, *pictures in zip(JOBS, *crowd, strict=True):
        for picture in pictures:
            assert np.abs(picture.astype(int) - _alone(model, job)).max() <= 1
    stats = engine.stats()
    assert stats.finished == 14
    assert stats.ticks < sum(len(job.sampler.calls(model.schedule)) for job in JOBS)  # calls were shared
    assert (stats.jobs_waiting, stats.jobs_running) == (0, 0)


def test_a_sampler_that_is_no_table_is_painted_alone_beside_the_others(model):
    """Its calls hold its own rows only; the others still share theirs; every picture is what `sample` paints."""
    seen: list[int] = []

    def network(x_t, t, cond):
        seen.append(len(x_t))
        return model.denoise(x_t, t, cond)

    engine = Engine(model, max_rows=8, precision="fp32")
    engine.use(network)
    shown: list[int] = []
    jobs = [Job("red", seed=n, sampler=Euler(num_steps=4)) for n in range(2)]
    jobs.append(Job("stirred", seed=5, sampler=StochasticHeun(num_steps=2), previews=1))
    tickets = engine.submit(jobs, on_preview=lambda job, *_: shown.append(job))
    assert [ticket.calls for ticket in tickets] == [4, 4, 3]
    engine.start()
    pictures = _results(tickets)
    engine.stop()
    assert sorted(seen) == [1, 1, 1, 2, 2, 2, 2]
    assert [ticket.calls_done for ticket in tickets] == [4, 4, 3]
    assert shown == [2]
    for job, picture in zip(jobs, pictures, strict=True):
        assert np.abs(picture.astype(int) - _alone(model, job)).max() <= 1


def test_a_late_comer_joins_the_batch_under_way(engine):
    joined = threading.Event()
    tickets = []

    def on_preview(_: int, number: int, picture: np.ndarray) -> None:
        if number == 0:
            tickets.extend(engine.submit([Job("late", seed=1, sampler=Euler(num_steps=3))]))
            joined.set()

    (long,) = engine.submit([Job("long", seed=0, sampler=Euler(num_steps=200), previews=1)], on_preview=on_preview)
    assert joined.wait(60)
    _results(tickets)
    assert not long.result.done()
    assert 0 < long.calls_done < 200
    _results([long])


def test_previews_come_early_evenly_and_lead_to_the_picture(engine):
    seen = []
    job = Job("a red house", seed=3, sampler=DPMSolverPP2M(num_steps=12), previews=3)
    ticket = None

    def on_preview(index: int, number: int, picture: np.ndarray) -> None:
        seen.append((index, number, engine.stats().ticks, picture))

    (ticket,) = engine.submit([job], on_preview=on_preview)
    picture = ticket.result.result(timeout=60)
    assert [(index, number) for index, number, *_ in seen] == [(0, 0), (0, 1), (0, 2)]
    assert [ticks for _, _, ticks, _ in seen] == [2, 6, 9]
    distances = [np.abs(preview.astype(float) - picture).mean() for *_, preview in seen]
    assert distances[-1] <= distances[0]


def test_a_cancelled_picture_frees_its_place(engine):
    tickets = engine.submit([Job("x", seed=n, sampler=Euler(num_steps=10_000)) for n in range(14)])
    with pytest.raises(Busy) as refused:
        engine.submit([Job("x", seed=0, sampler=SAMPLERS[3])])
    assert refused.value.retry_after_s >= 1
    for ticket in tickets:
        ticket.cancel()
    _wait_until(lambda: engine.stats().cancelled == 14)
    assert all(ticket.result.cancelled() for ticket in tickets)
    _results(engine.submit([Job("x", seed=0, sampler=SAMPLERS[3])]))


def test_the_loop_has_the_cores_that_the_main_thread_left(model):
    before = torch.get_num_threads()
    seen: list[int] = []
    try:
        cores = leave_cores()
        assert (cores, torch.get_num_threads()) == (before, 1)
        engine = Engine(model, precision="fp32", cores=cores + 1)
        engine.start()
        job = Job("x", seed=0, sampler=Euler(num_steps=4), previews=1)
        _results(engine.submit([job], on_preview=lambda *_: seen.append(torch.get_num_threads())))
        engine.stop()
        assert (seen, torch.get_num_threads()) == ([before + 1], 1)
    finally:
        torch.set_num_threads(before)


class AsksNothing(Loop):
    """What it is given is its picture."""

    def num_calls(self, schedule):
        return 0

    def walk(self, schedule, steps, x, noise):
        return x
        yield


def test_a_sampler_that_asks_nothing_paints(engine, model):
    job = Job("x", seed=3, sampler=AsksNothing(num_steps=1), guidance_scale=2.0)
    alone, again = (_results(engine.submit([job])) for _ in range(2))
    assert np.array_equal(alone[0], again[0])
    assert np.array_equal(alone[0], _alone(model, job))
    assert engine.stats().finished == 2


def test_all_of_a_request_or_none(engine):
    with pytest.raises(Busy):
        engine.submit([Job("x", seed=n, sampler=SAMPLERS[3]) for n in range(15)])
    assert engine.stats().jobs_waiting == 0


def test_a_picture_that_cannot_be_painted_fails_alone(engine):
    good = JOBS[:3]
    bad = Job("bad seed", seed=2**40, sampler=SAMPLERS[0])
    tickets = engine.submit([good[0], bad, *good[1:]])
    with pytest.raises(Exception, match="seed"):
        tickets[1].result.result(timeout=60)
    _results([tickets[0], *tickets[2:]])
    assert engine.alive
    assert engine.stats().failed == 1


def test_a_step_that_raises_fails_its_pictures_alone(model):
    poison = 0.5  # a time that only the doomed picture is asked at

    class Brittle(torch.nn.Module):
        def __init__(self, backbone: torch.nn.Module) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, x: torch.Tensor, t: torch.Tensor, cond) -> torch.Tensor:
            if (t == poison).any():
                raise RuntimeError("this step cannot be taken")
            return self.backbone(x, t, cond)

    model.backbone = Brittle(model.backbone)
    engine = Engine(model, max_rows=8, precision="fp32")
    engine.start()
    doomed = Job("doomed", seed=0, sampler=Euler(num_steps=2))  # asks at 1 and 1/2
    fine = [Job("fine", seed=n, sampler=Euler(num_steps=3)) for n in range(3)]
    tickets = engine.submit([doomed, *fine])
    with pytest.raises(RuntimeError, match="cannot be taken"):
        tickets[0].result.result(timeout=60)
    _results(tickets[1:])
    engine.stop()


def test_stopping_finishes_what_there_is_and_takes_nothing_more(model):
    engine = Engine(model, max_rows=4, precision="fp32")
    engine.start()
    tickets = engine.submit(JOBS)
    stopper = threading.Thread(target=engine.stop)
    stopper.start()
    _results(tickets)
    stopper.join(30)
    assert not engine.alive
    with pytest.raises(Stopping):
        engine.submit(JOBS[:1])


def test_what_takes_too_long_to_finish_is_told_so(model):
    engine = Engine(model, max_rows=4, precision="fp32")
    engine.start()
    (ticket,) = engine.submit([Job("x", seed=0, sampler=Euler(num_steps=10_000))])
    engine.stop(drain_s=0.05)
    assert not engine.alive
    with pytest.raises(Stopping):
        ticket.result.result(timeout=1)


def test_captions_are_encoded_once(model):
    encoded = []
    inner = model.text_encoder.encode
    model.text_encoder.encode = lambda captions: encoded.extend(captions) or inner(captions)
    engine = Engine(model, max_rows=8, precision="fp32")
    engine.start()
    for _ in range(3):
        jobs = [Job("twice", seed=n, sampler=SAMPLERS[0], guidance_scale=2.0) for n in range(2)]
        _results(engine.submit(jobs))
    engine.stop()
    assert sorted(encoded) == ["", "twice"]


def test_bfloat16_stays_near(model):
    engine = Engine(model, precision="bf16")
    engine.start()
    (picture,) = _results(engine.submit(JOBS[:1]))
    engine.stop()
    assert np.abs(picture.astype(int) - _alone(model, JOBS[0])).mean() < 8


# ---------------------------------------------------------------------- whose turn it is


def test_short_jobs_overtake_and_long_ones_do_not_starve():
    long = (deadline(0.0, calls=50, tick_s=0.1), 1, "long")
    short = (deadline(5.0, calls=4, tick_s=0.1), 1, "short")
    late = (deadline(19.0, calls=4, tick_s=0.1), 1, "late")
    assert choose([long, short], max_rows=1) == ["short"]
    assert choose([long, late], max_rows=1) == ["long"]


def test_a_guided_picture_that_does_not_fit_lets_a_plain_one_pass():
    assert choose([(1.0, 2, "a"), (2.0, 2, "b"), (3.0, 1, "c")], max_rows=3) == ["a", "c"]


@pytest.mark.parametrize("most", [2, 7, 16, 64, 100, 500])
def test_batches_are_padded_little(most):
    sizes = buckets(most)
    assert sizes[-1] == most
    assert sizes == sorted(set(sizes))
    padding = {rows: bucket_of(rows, sizes) - rows for rows in range(1, most + 1)}
    assert all(count <= max(1, rows // 16) for rows, count in padding.items())
    assert not any(padding[rows] for rows in range(2, min(most, 64) + 1, 2))


def _wait_until(condition, timeout_s: float = 30.0) -> None:
    done = threading.Event()
    for _ in range(int(timeout_s / 0.01)):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError("it did not happen")


def test_pictures_of_several_sizes_are_painted_as_if_alone():
    model = toy_model(sizes=["12x20", "16x16", "20x12"])
    engine = Engine(model, max_rows=8, max_jobs=14, precision="fp32")
    sizes = [(20, 12), (16, 16), (12, 20), (20, 12), None, (16, 16), (12, 20)]
    jobs = [replace(job, size=size) for job, size in zip(JOBS, sizes, strict=True)]
    engine.start()
    try:
        found = [ticket.result.result(timeout=60) for ticket in engine.submit(jobs)]
    finally:
        engine.stop()
    for job, picture in zip(jobs, found, strict=True):
        alone = _alone(model, job)
        assert picture.shape == alone.shape == ((job.size or (16, 16))[1], (job.size or (16, 16))[0], 3)
        assert np.abs(picture.astype(int) - alone.astype(int)).max() <= 1
