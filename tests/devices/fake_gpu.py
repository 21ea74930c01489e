"""A GPU that computes nothing, for machines that have none: `with FakeGpu() as gpu: ...`

Inside the block torch finds one CUDA device. Tensors on it are fake (`torch._subclasses.FakeTensorMode`): they have a
shape, a dtype and a device, and no values. Tensors on the CPU stay real. So the code under test runs as it is, moves
its modules and batches with `.to("cuda")`, and raises where a real GPU would:

    two devices in one operation                                       by FakeTensorMode
    in an operation on lists, a fused optimiser, or numbers stacked    here, since FakeTensorMode lets it pass
    indices on the GPU for a tensor on the CPU                         here, likewise
    a generator of another device than the tensor it fills             here, likewise
    `.numpy()` of a tensor on the GPU                                  by torch

What is read back from the device is 1, or True, and `waits` tells who read it: each such line makes
the host wait until the GPU has done all work queued before.

What torch cannot do without a driver is replaced below, none of it ours: questions about the device, generators,
`Module.to` (it swaps each parameter's content, so that a parameter stays the object that it was), `torch.save` and
`torch.load` (files hold real tensors), and the walk back through the graph of gradients (torch's own asks the driver
for its streams).
"""

from __future__ import annotations

import linecache
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

ATEN: Any = torch.ops.aten
INDEXING = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default, ATEN._unsafe_index.Tensor)
READING = (ATEN._local_scalar_dense.default, ATEN.equal.default)
DEVICE = torch.ops.prim.device.default
CAPABILITY = (9, 0)


class FakeGpu(TorchDispatchMode):
    """See above."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: list[tuple[str, int]] = []
        self._fake = FakeTensorMode()
        self._block = ExitStack()

    def __enter__(self) -> FakeGpu:
        self._block.enter_context(self._fake)  # before a GPU is said to be there, or it would be initialised
        only_on_cpu = torch._C._only_lift_cpu_tensors()
        self._block.callback(torch._C._set_only_lift_cpu_tensors, only_on_cpu)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") makes it on the CPU first
        for owner, name, stand_in in stand_ins():
            self._block.enter_context(mock.patch.object(owner, name, stand_in))
        super().__enter__()
        return self

    @contextmanager
    def here(self) -> Iterator[None]:
        """The same for this thread: each has modes of its own."""
        with self._fake:
            torch._C._set_only_lift_cpu_tensors(True)
            super().__enter__()
            try:
                yield
            finally:
                super().__exit__(None, None, None)

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._block.__exit__(*error)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard takes as long as an operation

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is DEVICE:  # half of all calls
            return args[0].device
        kwargs = kwargs or {}
        given = list(flat(args)) + list(flat(kwargs.values()))
        here = any(isinstance(x, Tensor) and not isinstance(x, FakeTensor) for x in given)
        there = any(isinstance(x, FakeTensor) for x in given)
        wanted = torch.device(kwargs.get("device") or "cpu").type
        check_generators(given, device="cuda" if there or wanted == "cuda" else "cpu")
        if not there and wanted != "cuda":
            with torch._C._DisableTorchDispatch():
                return args[0].clone() if func is ATEN._pin_memory.default else func(*args, **kwargs)
        if func in READING:
            self._note()
            return one_of(args[0]) if func is READING[0] else True
        check_devices(func, args)
        if func is ATEN.copy_.default and not isinstance(args[0], FakeTensor):
            self._note()
            with torch._C._DisableTorchDispatch():
                return args[0].fill_(one_of(args[0]))
        if here:
            args, kwargs = tree_map_only(Tensor, lent, (args, kwargs))
        out = func(*args, **kwargs)
        return self._landed(out) if isinstance(out, Tensor) else tree_map_only(FakeTensor, self._landed, out)

    def _landed(self, x: FakeTensor) -> Tensor:
        """What an operation left on the CPU, as a real tensor."""
        if x.device.type != "cpu":
            return x
        self._note()
        return arrived(x)

    def _note(self) -> None:
        frame, found = sys._getframe(1), None
        while frame is not None and not (found and "/diffusion_art/" in found[0]):
            file = frame.f_code.co_filename
            if file != __file__ and (found is None or "/diffusion_art/" in file):
                found = file, frame.f_lineno
            frame = frame.f_back
        self._readers.append(found)

    @property
    def waits(self) -> list[str]:
        """The lines that read from the device: of this package, or else of the library that did."""
        return [f"{Path(file).name}: {linecache.getline(file, line).strip()}" for file, line in self._readers]


def flat(given: Iterable[Any]) -> Iterator[Any]:
    for x in given:
        if isinstance(x, list | tuple):
            yield from flat(x)
        else:
            yield x


def lent(x: Tensor) -> Tensor:
    """A tensor of the CPU as a fake one, still of the CPU."""
    if isinstance(x, FakeTensor):
        return x
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cpu")


def arrived(x: FakeTensor) -> Tensor:
    """What a fake tensor reads as on the CPU."""
    with torch._C._DisableTorchDispatch():
        real = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
        return real.fill_(one_of(x))


def one_of(x: FakeTensor) -> bool | int | float:
    return True if x.dtype == torch.bool else 1.0 if x.dtype.is_floating_point else 1


def check_devices(func: Any, args: tuple) -> None:
    """What FakeTensorMode lets pass and a GPU does not."""
    name = func.overloadpacket.__name__
    if func in INDEXING and args[0].device.type == "cpu":
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    if name.startswith("_foreach_"):  # one tensor of each list at a time; numbers of the CPU are welcome
        lists = [[x for x in row if x.ndim] for row in zip(*(arg for arg in args if is_list(arg)))]
    elif name.startswith("_fused_") or name in ("stack", "cat"):
        lists = [[x for arg in args if is_list(arg) for x in arg]]
    else:
        return
    for tensors in lists:
        if len(found := {x.device.type for x in tensors}) > 1:
            raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found {sorted(found)}")


def is_list(arg: Any) -> bool:
    return isinstance(arg, list | tuple) and all(isinstance(x, Tensor) for x in arg)


def check_generators(given: list[Any], *, device: str) -> None:
    for generator in given:
        if isinstance(generator, GENERATOR) and (its := CudaGenerator.type_of(generator)) != device:
            raise RuntimeError(f"Expected a {device!r} device type for generator but found {its!r}")


# ---------------------------------------------------------------------- what needs a driver


class Event:
    """`torch.cuda.Event`, which has always come to pass."""

    def record(self) -> None: ...

    def query(self) -> bool:
        return True

    def synchronize(self) -> None: ...


GENERATOR = torch.Generator


class _AnyGenerator(type(GENERATOR)):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, GENERATOR)


class CudaGenerator(GENERATOR, metaclass=_AnyGenerator):
    """`torch.Generator`, and one of a device that is not there. Torch wraps what it is given anew: `living` knows it
    again."""

    living: ClassVar[set[int]] = set()

    def __new__(cls, device: torch.device | str = "cpu") -> Any:
        if torch.device(device).type != "cuda":
            return GENERATOR(device)
        made = super().__new__(cls, "cpu")
        cls.living.add(made._cdata)
        weakref.finalize(made, cls.living.discard, made._cdata)
        return made

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 0)

    @classmethod
    def type_of(cls, generator: GENERATOR) -> str:
        return "cuda" if generator._cdata in cls.living else generator.device.type


def stand_ins() -> list[tuple[Any, str, Any]]:
    """(where, name, what) of all that torch asks a driver for."""
    properties = SimpleNamespace(name="fake", major=CAPABILITY[0], minor=CAPABILITY[1], total_memory=80 * 2**30)
    state = torch.zeros(16, dtype=torch.uint8)
    return [
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "Event", Event),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "set_device", lambda device: None),
        (torch.cuda, "get_device_capability", lambda device=None: CAPABILITY),
        (torch.cuda, "get_device_properties", lambda device=None: properties),
        (torch.cuda, "get_rng_state", lambda device="cuda": state),
        (torch.cuda, "set_rng_state", lambda new_state, device="cuda": None),
        (torch, "Generator", CudaGenerator),
        (FakeTensor, "__format__", lambda number, spec: format(number.item(), spec)),
        (nn.Module, "_apply", apply_by_swapping),
        (torch.utils, "swap_tensors", swap),
        (torch, "save", save),
        (torch, "load", load),
        (torch.autograd, "backward", backward),
    ]


APPLY, SAVE, LOAD = nn.Module._apply, torch.save, torch.load


def apply_by_swapping(module: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
    """`Module._apply`, what `Module.to` and its like are made of."""
    future, before = torch.__future__, torch.__future__.get_swap_module_params_on_conversion()
    future.set_swap_module_params_on_conversion(True)
    try:
        return APPLY(module, fn, recurse)
    finally:
        future.set_swap_module_params_on_conversion(before)


def save(content: Any, *args: Any, **kwargs: Any) -> None:
    with _disable_current_modes():
        SAVE(tree_map_only(FakeTensor, arrived, content), *args, **kwargs)


def load(*args: Any, **kwargs: Any) -> Any:
    with _disable_current_modes():
        return LOAD(*args, **kwargs)


def swap(one: Tensor, other: Tensor) -> None:
    """`torch.utils.swap_tensors`, which refuses a tensor that anything holds weakly, as FakeTensorMode does."""
    one.__class__, other.__class__ = other.__class__, one.__class__
    one.__dict__, other.__dict__ = other.__dict__, one.__dict__
    torch._C._swap_tensor_impl(one, other)


def backward(tensors: Any, grad_tensors: Any = None, *rest: Any, **more: Any) -> None:
    """`torch.autograd.backward`: each node of the graph after all that lead to it."""
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    given = [grad_tensors] if isinstance(grad_tensors, Tensor) else list(grad_tensors or [None] * len(roots))
    pending: dict[Any, dict[int, Tensor]] = {}
    with torch.no_grad():
        for root, gradient in zip(roots, given, strict=True):
            add(pending, root.grad_fn, root.output_nr, torch.ones_like(root) if gradient is None else gradient)
        for node in in_order([root.grad_fn for root in roots]):
            found = pending.pop(node, {})
            if not found:
                continue
            gradients = [found.get(place) for place in range(len(node._input_metadata))]
            out = node(*gradients) if callable(node) else node.apply(*gradients)
            for (after, place), gradient in zip(node.next_functions, out if isinstance(out, tuple) else (out,)):
                if after is not None and gradient is not None:
                    add(pending, after, place, gradient)


def add(pending: dict[Any, dict[int, Tensor]], node: Any, place: int, gradient: Tensor) -> None:
    """As torch's engine does: of the shape and dtype of what it is the gradient of, and refused on another device."""
    wanted = node._input_metadata[place]
    if gradient.device != wanted.device:
        raise RuntimeError(f"{node} expected a gradient on device {wanted.device}, not {gradient.device}")
    gradient = gradient.sum_to_size(wanted.shape).to(wanted.dtype)
    found = pending.setdefault(node, {})
    found[place] = found[place] + gradient if place in found else gradient


def in_order(roots: list[Any]) -> list[Any]:
    order, seen, stack = [], set(), [(root, False) for root in roots]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(after, False) for after, _ in node.next_functions if after is not None]
    return order[::-1]
