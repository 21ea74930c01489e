"""Where the time of a step goes: a table in words, and a trace for https://ui.perfetto.dev."""

from __future__ import annotations

import gzip
import logging
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.profilers import Profiler
from torch.profiler import ProfilerActivity, record_function

from diffusion_art.training.step import TEXT, Listener, listening

log = logging.getLogger(__name__)

STEP = "run_training_batch"
LARGE_BYTES = 20_000_000  # a trace above this is compressed; perfetto reads both
REST, CALLBACKS = "the rest of the step", "callbacks and logging"
PARTS = (  # the end of an action's name in Lightning -> what it is to people
    ("train_dataloader_next", "waiting for data"),
    ("batch_to_device", "moving the batch to the device"),
    (".training_step", "noise and loss"),
    (".backward", "backward pass of all of them"),
    (".optimizer_step", "optimiser, clipping and averaging of weights"),
    (".configure_gradient_clipping", "optimiser, clipping and averaging of weights"),
    (".optimizer_zero_grad", "optimiser, clipping and averaging of weights"),
    (".lr_scheduler_step", "optimiser, clipping and averaging of weights"),
)
ADVICE = {
    "waiting for data": "more data.num_workers, or a data.url of a server with more cores",
    "moving the batch to the device": "data.payload=u8 moves a quarter of the bytes",
    TEXT: "a pretrained, frozen one reads each caption once; a smaller one of its own costs less",
    "optimiser, clipping and averaging of weights": "a larger data.global_batch_size; optim=adamw is the cheaper one",
    CALLBACKS: "larger callbacks.NAME.every_n_steps",
}


class StepProfiler(Profiler):
    """Times the parts of `steps` training steps after `skip` first ones, then records `traced` more for the trace.

    Each part counts only what is not in another part within it. While parts are timed, a GPU is waited for at the
    borders of each, so the steps are slower than without, and the shares are right; the trace is recorded without
    waiting. Writes `profile.md` and `trace.json` (`trace.json.gz` if large) into `folder`.
    """

    def __init__(self, *, folder: str, skip: int = 5, steps: int = 20, traced: int = 3) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.skip = skip
        self.steps = steps
        self.traced = traced
        self.seconds: dict[str, float] = {}  # of the timed steps, by part
        self.step = 0
        self._stack: list[str] = []  # parts, the innermost last
        self._since = 0.0
        self._hooks = ExitStack()
        self._spans: list[Any] = []
        self._recorder: torch.profiler.profile | None = None

    # ------------------------------------------------------------------ what Lightning calls

    def start(self, action_name: str) -> None:
        if action_name == "run_training_epoch":
            self._hooks.enter_context(listening(Listener(lambda part: self._begin(part, part), self._end)))
        self._begin(action_name, self._part(action_name))

    def stop(self, action_name: str) -> None:
        self._end()
        if action_name == STEP:
            self.step += 1
            self._after_step()

    def summary(self) -> str:
        """The table, and what to try first."""
        if not self.timed_steps:
            return "no step was timed: the run was shorter than the profiler's `skip`"
        lines = self._table()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "profile.md").write_text("\n".join(["# Where the time of a step goes", "", *lines]) + "\n")
        return "\n".join(lines)

    def describe(self) -> None:
        self._finish_trace()
        if self._local_rank in (None, 0):
            log.info("%s", self.summary())
        self._hooks.close()

    # ------------------------------------------------------------------ parts

    @property
    def timed_steps(self) -> int:
        return max(0, min(self.step - self.skip, self.steps))

    @property
    def _timing(self) -> bool:
        return self.skip <= self.step < self.skip + self.steps

    def _part(self, action_name: str) -> str:
        if action_name.startswith(("[Callback]", "[LightningModule]")) and ".on_" in action_name:
            return CALLBACKS
        inherited = self._stack[-1] if self._stack else REST
        return next((part for end, part in PARTS if action_name.endswith(end)), inherited)

    def _begin(self, name: str, part: str) -> None:
        self._count()
        self._stack.append(part)
        if self._recorder is not None:
            self._spans.append(record_function(name))
            self._spans[-1].__enter__()

    def _end(self) -> None:
        self._count()
        if self._stack:
            self._stack.pop()
        if self._spans:
            self._spans.pop().__exit__(None, None, None)

    def _count(self) -> None:
        """Give the time since the last border to the part that it was spent in."""
        if self._timing and torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._timing and self._stack and self._since:
            self.seconds[self._stack[-1]] = self.seconds.get(self._stack[-1], 0.0) + now - self._since
        self._since = now

    # ------------------------------------------------------------------ the trace

    def _after_step(self) -> None:
        if self.step == self.skip + self.steps:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
            self._recorder = torch.profiler.profile(activities=activities, acc_events=True)
            self._recorder.__enter__()
        elif self.step == self.skip + self.steps + self.traced:
            self._finish_trace()

    def _finish_trace(self) -> None:
        if self._recorder is None:
            return
        while self._spans:
            self._spans.pop().__exit__(None, None, None)
        recorder, self._recorder = self._recorder, None
        recorder.__exit__(None, None, None)
        if self._local_rank not in (None, 0):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "trace.json"
        recorder.export_chrome_trace(str(path))
        log.info("a trace of %d steps is in %s; open it at https://ui.perfetto.dev", self.traced, _compressed(path))

    # ------------------------------------------------------------------ the table

    def _table(self) -> list[str]:
        total = sum(self.seconds.values())
        lines = [
            f"{1000 * total / self.timed_steps:.1f} ms a step, over {self.timed_steps} steps after {self.skip} others",
            "",
            "| where | ms a step | share |",
            "|---|---:|---:|",
        ]
        ranked = sorted(self.seconds.items(), key=lambda entry: -entry[1])
        lines += [f"| {part} | {1000 * s / self.timed_steps:.2f} | {s / total:.1%} |" for part, s in ranked]
        tips = [
            f"{part} takes {s / total:.0%}: {ADVICE[part]}" for part, s in ranked if part in ADVICE and s > total / 5
        ]
        return lines + (["", *tips] if tips else [])


def _compressed(path: Path) -> Path:
    """The file, or where it is large a compressed one in its place."""
    if path.stat().st_size < LARGE_BYTES:
        return path
    packed = path.with_suffix(".json.gz")
    with path.open("rb") as plain, gzip.open(packed, "wb", compresslevel=3) as file:
        shutil.copyfileobj(plain, file)
    path.unlink()
    return packed
