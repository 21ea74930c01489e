"""One network call for pictures that have nothing in common: other captions, samplers, steps, guidance, times.

Captions are encoded once: the engine meets the same words, and above all the same empty caption, again and again.
A picture whose sampler is a loop of its own is asked about alone, since only its sampler knows what comes next.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.guidance import bounded, guide
from diffusion_art.diffusion.samplers import Ask, NoiseSource, Sampler, Tabular
from diffusion_art.diffusion.samplers.base import Loop, Walk
from diffusion_art.diffusion.samplers.table import Call
from diffusion_art.models.text_to_image import Network, TextToImage
from diffusion_art.serving.engine.jobs import Job
from diffusion_art.tensors import Conditioning

MAX_BYTES = 64 * 2**20  # of encoded captions
KEPT_SAMPLERS = 64  # whose calls are remembered


@dataclass
class Slot:
    """A picture on its way: its calls, how many are done, x_t and its sampler's two memories, [1 c h w] each."""

    job: Job
    calls: Sequence[Call]
    x: Tensor
    memory: Tensor
    noise: NoiseSource
    done: int = 0
    last: Tensor | None = field(default=None, repr=False)  # x_0_hat of the last call

    @property
    def call(self) -> Call:
        return self.calls[self.done]

    @property
    def t(self) -> float:
        """The time of the next network call."""
        return self.calls[self.done].t

    @property
    def rows(self) -> int:
        """Rows of the next network call."""
        return 2 if self.job.guided_at(self.t) else 1

    @property
    def finished(self) -> bool:
        return self.done == len(self.calls)


@dataclass
class LoopSlot:
    """A picture on its way whose sampler is a loop of its own: what it asks next, and in the end what it painted."""

    job: Job
    walk: Walk = field(repr=False)
    x: Tensor
    t: float = 1.0
    last: Tensor | None = field(default=None, repr=False)  # x_0_hat of the last call
    finished: bool = False

    def __post_init__(self) -> None:
        self.answered(None)

    @property
    def rows(self) -> int:
        """Rows of the next network call."""
        return 2 if self.job.guided_at(self.t) else 1

    def answered(self, x_0_hat: Float[Tensor, "1 c h w"] | None) -> None:
        """One call further on; None begins the walk."""
        self.last = x_0_hat
        try:
            ask: Ask = self.walk.send(x_0_hat)  # type: ignore[arg-type]
            self.x, self.t = ask.x, ask.t
        except StopIteration as end:
            self.x, self.finished = end.value, True


class Stepper:
    """Moves slots on, together. Knows no queue, thread or clock.

    `network` may be set at any time, to what is to be called in the backbone's place from the next call on.
    """

    def __init__(self, model: TextToImage, *, precision: torch.dtype | None = None) -> None:
        self.model = model
        self.precision = precision
        self.network: Network | None = None
        self.captions = EncodedCaptions(self._encode)
        self._lock = threading.Lock()
        self._calls: OrderedDict[Tabular, list[Call]] = OrderedDict()

    def calls(self, sampler: Tabular) -> list[Call]:
        """The network calls of a sampler under the model's schedule; kept for those asked for lately."""
        with self._lock:
            if sampler not in self._calls:
                self._calls[sampler] = sampler.calls(self.model.schedule)
                if len(self._calls) > KEPT_SAMPLERS:
                    self._calls.popitem(last=False)
            self._calls.move_to_end(sampler)
            return self._calls[sampler]

    def num_calls(self, sampler: Sampler) -> int:
        """How many network calls a picture takes, at most."""
        if isinstance(sampler, Tabular):
            return len(self.calls(sampler))
        return sampler.num_calls(self.model.schedule)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Within it, weights are cast to `precision` once, not at each call. Entered by the thread that paints."""
        with torch.no_grad(), self._autocast():
            yield

    def slot(self, job: Job) -> Slot | LoopSlot:
        """The place of a new picture, its captions encoded."""
        self.captions.warm({job.prompt, job.negative_prompt} if job.guidance_scale != 1 else {job.prompt})
        shape = self.model.latent_shape if job.size is None else self.model.latent_shape_of(job.size)
        noise = NoiseSource([job.seed], shape, device=self.model.device)
        x = noise.x_T()
        if isinstance(job.sampler, Tabular):
            return Slot(job, self.calls(job.sampler), x, torch.zeros_like(x), noise)
        assert isinstance(job.sampler, Loop)
        return LoopSlot(job, job.sampler.begin(self.model.schedule, x, noise), x)

    @torch.no_grad()
    def advance(self, slots: Sequence[Slot], *, batch_size: int) -> None:
        """One network call of `batch_size` rows for slots of one size, each one call further on. All or nothing on an
        error.

        The first rows are the slots' own, then come the nulls of those that are guided, then padding.
        """
        x, memory = torch.cat([slot.x for slot in slots]), torch.cat([slot.memory for slot in slots])
        last = torch.cat([slot.memory if slot.last is None else slot.last for slot in slots])  # at first both are 0
        x_0_hat = self._denoise(slots, x, batch_size=batch_size)
        calls = [slot.call for slot in slots]

        def mixed(*names: str) -> Tensor:
            """x, x_0_hat and the two memories, each times its row's number of that name, summed."""
            total = torch.zeros_like(x)
            for name, part in zip(names, (x, x_0_hat, memory, last), strict=True):
                if any(numbers := [getattr(call, name) for call in calls]):
                    total += column(numbers, x) * part
            return total

        x_next = mixed("of_x", "of_x0", "of_memory", "of_last")
        for row, (slot, call) in enumerate(zip(slots, calls, strict=True)):
            if call.of_noise:
                x_next[row] += call.of_noise * slot.noise(call.step_index)[0].to(x)
        if any(call.remembers for call in calls):
            keeps = torch.tensor([call.remembers for call in calls]).to(x.device)[:, None, None, None]
            fresh = mixed("memory_of_x", "memory_of_x0", "memory_of_memory", "memory_of_last")
            memory = torch.where(keeps, fresh, memory)
        for row, slot in enumerate(slots):
            slot.x, slot.memory, slot.last = x_next[row, None], memory[row, None], x_0_hat[row, None]
            slot.done += 1

    @torch.no_grad()
    def advance_alone(self, slot: LoopSlot, *, batch_size: int) -> None:
        """One network call for a picture that goes alone."""
        slot.answered(self._denoise([slot], slot.x, batch_size=batch_size))

    def _denoise(self, slots: Sequence[Slot | LoopSlot], x: Float[Tensor, "b c h w"], *, batch_size: int) -> Tensor:
        """x_0_hat of each slot, guided where it wants to be."""
        guided = [row for row, slot in enumerate(slots) if slot.rows == 2]
        captions = [slot.job.prompt for slot in slots] + [slots[row].job.negative_prompt for row in guided]
        spare = batch_size - len(captions)
        order = [*range(len(slots)), *guided, *([0] * spare)]
        cond = self.captions(captions + captions[:1] * spare)
        t = torch.tensor([slots[row].t for row in order], dtype=torch.float32).to(x.device)
        with self._autocast():
            answers = self.model.bind(cond, network=self.network).unclipped(x[order], t)
        x_0_hat, nulls = answers[: len(slots)], answers[len(slots) : len(captions)]
        if guided:
            scale = column([slots[row].job.guidance_scale for row in guided], x)
            rescales = [slots[row].job.rescale for row in guided]
            rescale = column(rescales, x) if any(rescales) else 0.0
            x_0_hat = x_0_hat.index_copy(
                0, torch.tensor(guided, device=x.device), guide(x_0_hat[guided], nulls, scale=scale, rescale=rescale)
            )
        if not self.model.codec.bounded:
            return x_0_hat
        return bounded(x_0_hat, share=[slot.job.threshold if slot.rows == 2 else 0.0 for slot in slots])

    @torch.no_grad()
    def picture(self, latents: Float[Tensor, "1 c h w"]) -> Float[Tensor, "3 height width"]:
        """Latents as a picture in [-1, 1], on the CPU."""
        with torch.autocast(self.model.device.type, enabled=False):
            return self.model.codec.decode(latents).float().clamp(-1, 1).cpu()[0]

    def _encode(self, captions: list[str]) -> Conditioning:
        """Captions as the model reads them in full precision, as `generate` does."""
        with torch.autocast(self.model.device.type, enabled=False):
            return self.model.encode_captions(captions)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, dtype=self.precision, enabled=self.precision is not None)


def column(values: Sequence[float], like: Tensor) -> Float[Tensor, "b 1 1 1"]:
    """One number per picture, shaped to multiply pictures."""
    return torch.tensor(values, dtype=like.dtype).to(like.device)[:, None, None, None]


class EncodedCaptions:
    """The conditionings, one row each, of the captions used last, as many as `max_bytes` hold.

    Captions are encoded one at a time, so that what a caption becomes does not depend on its company.
    """

    def __init__(self, encode: Callable[[list[str]], Conditioning], *, max_bytes: int = MAX_BYTES) -> None:
        self.encode = encode
        self.max_bytes = max_bytes
        self.bytes = 0
        self._rows: OrderedDict[str, Conditioning] = OrderedDict()

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        """One row per caption, padded to the longest."""
        different = list(dict.fromkeys(captions))
        rows = torch.tensor([different.index(caption) for caption in captions])
        return Conditioning.cat([self._row(caption) for caption in different])[rows]

    def warm(self, captions: Iterable[str]) -> None:
        for caption in captions:
            self._row(caption)

    def _row(self, caption: str) -> Conditioning:
        row = self._rows.get(caption)
        if row is None:
            with torch.no_grad():
                row = self._rows[caption] = self.encode([caption])
            self.bytes += _bytes(caption, row)
            while self.bytes > self.max_bytes:
                self.bytes -= _bytes(*self._rows.popitem(last=False))
        else:
            self._rows.move_to_end(caption)
        return row


def _bytes(caption: str, row: Conditioning) -> int:
    return 4 * len(caption) + row.tokens.nbytes + row.mask.nbytes + row.pooled.nbytes
