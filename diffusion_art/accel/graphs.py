"""Network calls replayed from CUDA graphs: a small batch then takes as long as its kernels, not as launching them.

    network = Captured.of(model.backbone, dtype=torch.bfloat16)
    network(x_t, t, cond)

Rows are padded to one of a few batch sizes and captions to a multiple of `TOKENS`, so that few graphs serve all calls.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.tensors import Conditioning

SIZES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # rows of a graph; a larger batch is not bound by launching
TOKENS = 32  # a caption's length is padded to a multiple of it
KEEP = 3 * len(SIZES)  # graphs, those used last: each number of rows with captions of up to three lengths
PATIENCE = 64  # calls of a shape that run as they are after memory did not suffice to record one

Network = Callable[[Tensor, Tensor, Conditioning], Tensor]
Replay = Callable[[], Tensor]  # does again what was recorded, and returns the tensor where the answer lies each time
Record = Callable[[Replay, torch.device], Replay]  # of a call, all of it on that device

log = logging.getLogger(__name__)


class Captured:
    """`network`, whose calls are recorded once for each shape, and then replayed.

    The first call of a shape runs the network as it is, so that its kernels are there; the second records it. What
    cannot be recorded, or has more rows than the largest of `sizes`, runs as it is each time; where memory did not
    suffice, which may pass, it is tried again later. For one thread, for calls without gradients, and for a network
    whose weights stay where they are. `record` makes a replay of a call whose inputs and answer keep their places; a
    CUDA graph if not given.
    """

    def __init__(
        self,
        network: Network,
        *,
        sizes: Sequence[int] = SIZES,
        keep: int = KEEP,
        record: Record | None = None,
    ) -> None:
        self.network = network
        self.sizes = sorted(sizes)
        self.keep = keep
        self._record = record or CudaGraphs()
        self._seen: set[Hashable] = set()
        self._said: set[Hashable] = set()  # that they are not recorded
        self._resting: dict[Hashable, float] = {}  # calls to run as they are before recording is tried again
        self._calls: OrderedDict[Hashable, Call] = OrderedDict()

    @classmethod
    def of(cls, backbone: nn.Module, *, dtype: torch.dtype | None = None) -> Captured:
        """Of a backbone; with `dtype` of a copy in it, which answers in it too."""
        return cls(in_precision(backbone, dtype))

    @torch.no_grad()
    def __call__(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c h w"]:
        size = next((size for size in self.sizes if size >= len(x_t)), None)
        if size is None:
            return self.network(x_t, t, cond)
        shape = Shape.of(x_t, t, cond, rows=size)
        resting = self._resting.get(shape, 0)
        if resting or shape not in self._seen:
            self._seen.add(shape)
            self._resting[shape] = max(0, resting - 1)
            return self.network(x_t, t, cond)
        call = self._recorded(shape, x_t.device)
        return self.network(x_t, t, cond) if call is None else call(x_t, t, cond)

    def _recorded(self, shape: Shape, device: torch.device) -> Call | None:
        if shape not in self._calls:
            try:
                self._calls[shape] = Call(self.network, shape, device, self._record)
            except RuntimeError as error:
                if shape not in self._said:
                    log.warning("calls of %d rows are not recorded, and run as they are: %s", shape.rows, error)
                self._said.add(shape)
                self._resting[shape] = PATIENCE if isinstance(error, torch.OutOfMemoryError) else math.inf
                return None
            if len(self._calls) > self.keep:
                self._calls.popitem(last=False)
        self._calls.move_to_end(shape)
        return self._calls[shape]


@dataclass(frozen=True)
class Shape:
    """All that two calls must have in common to be one graph."""

    rows: int
    latents: tuple[int, ...]
    tokens: tuple[int, int]  # how many, of how many features
    pooled: int
    dtypes: tuple[torch.dtype, ...]
    autocast: torch.dtype | None

    @classmethod
    def of(cls, x_t: Tensor, t: Tensor, cond: Conditioning, *, rows: int) -> Shape:
        device, length = x_t.device.type, cond.tokens.shape[1]
        return cls(
            rows,
            tuple(x_t.shape[1:]),
            (-(-length // TOKENS) * TOKENS, cond.tokens.shape[2]),
            cond.pooled.shape[1],
            (x_t.dtype, t.dtype, cond.tokens.dtype, cond.pooled.dtype),
            torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
        )


class Call:
    """A recorded call: inputs that keep their places, filled before each replay."""

    def __init__(self, network: Network, shape: Shape, device: torch.device, record: Record) -> None:
        rows, of_x, of_t, of_tokens, of_pooled = shape.rows, *shape.dtypes
        self.x_t = torch.zeros(rows, *shape.latents, dtype=of_x, device=device)
        self.t = torch.zeros(rows, dtype=of_t, device=device)
        self.cond = Conditioning(
            torch.zeros(rows, *shape.tokens, dtype=of_tokens, device=device),
            torch.zeros(rows, shape.tokens[0], dtype=torch.bool, device=device),
            torch.zeros(rows, shape.pooled, dtype=of_pooled, device=device),
        )
        self._replay = record(lambda: network(self.x_t, self.t, self.cond), device)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Rows and tokens beyond those given keep what they had: no row asks another, and no token that is masked."""
        rows, length = cond.tokens.shape[:2]
        self.x_t[:rows].copy_(x_t)
        self.t[:rows].copy_(t)
        self.cond.tokens[:rows, :length].copy_(cond.tokens)
        self.cond.mask.zero_()
        self.cond.mask[:rows, :length].copy_(cond.mask)
        self.cond.pooled[:rows].copy_(cond.pooled)
        return self._replay()[:rows].clone()


class CudaGraphs:
    """Records calls as CUDA graphs, which share their memory: they are replayed one after the other."""

    WARM_UPS = 2  # on a stream of their own, as CUDA asks before it records

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, call: Replay, device: torch.device) -> Replay:
        with torch.cuda.device(device):  # a stream is one of the device that is current when it is made
            return self._recorded(call, torch.cuda.current_stream(), torch.cuda.Stream())

    def _recorded(self, call: Replay, usual: torch.cuda.Stream, aside: torch.cuda.Stream) -> Replay:
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        aside.wait_stream(usual)
        with torch.cuda.stream(aside):
            for _ in range(self.WARM_UPS):
                call()
        usual.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"):
                answer = call()
        except RuntimeError:
            torch.cuda.set_stream(usual)  # torch leaves the thread on the other one
            self._pool = None  # nothing more can be recorded into the memory of one that failed
            raise

        def replay() -> Tensor:
            graph.replay()
            return answer

        return replay


def in_precision(backbone: nn.Module, dtype: torch.dtype | None) -> Network:
    """The backbone as a network; with `dtype` a copy whose weights, inputs and answer are in it, without autocast.

    Autocast would keep its casts of the weights in a cache, which a graph must not read: it is emptied at times.
    """
    if dtype is None:
        return backbone
    net = deepcopy(backbone).to(dtype).eval()

    def network(x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        told = Conditioning(cond.tokens.to(dtype), cond.mask, cond.pooled.to(dtype))
        with torch.autocast(x_t.device.type, enabled=False):
            return net(x_t.to(dtype), t.float(), told)

    return network
