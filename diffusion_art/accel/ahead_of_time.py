"""A network that torch's ahead-of-time compiler made for this processor, called without Python's lock."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from diffusion_art.tensors import Conditioning


def arguments(x_t: Tensor, t: Tensor, cond: Conditioning, *, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """A network call as a compiled network takes it: dense tensors, all but times and mask in `dtype`."""
    given = (x_t.to(dtype), t.float(), cond.tokens.to(dtype), cond.mask, cond.pooled.to(dtype))
    return tuple(each.contiguous() for each in given)


class CompiledNetwork:
    """The backbone from a library that `compile_network` wrote: (x_t, t, cond) -> what it answers, in `dtype`.

    torch's own way to call one keeps Python's lock throughout, so that the HTTP face, `/health` too, would stand still
    for the length of a tick. So it is called by its C interface (torch's `aoti_runtime/interface.h` and
    `aoti_torch/c/shim.h`) through ctypes, which lets go of the lock.

    Raises:
        OSError: no library that can be loaded here.
        RuntimeError: what the library says when it fails.
    """

    def __init__(self, path: Path, *, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._torch = ctypes.CDLL(str(next(Path(torch.__file__).parent.glob("lib/*torch_cpu.*"))))
        self._library = ctypes.CDLL(str(path))
        self._library.AOTInductorGetLastError.restype = ctypes.c_char_p
        self._numbers = {
            each: getattr(self._torch, f"aoti_torch_dtype_{str(each).removeprefix('torch.')}")()
            for each in {dtype, torch.float32, torch.bool}
        }
        self._container = ctypes.c_void_p()
        self._must(
            self._library.AOTInductorModelContainerCreateWithDevice(
                ctypes.byref(self._container), ctypes.c_size_t(1), b"cpu", None
            )
        )

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        rows = len(x_t)
        if rows == 1:  # it was compiled for two and more
            x_t, t, cond = x_t.expand(2, -1, -1, -1), t.expand(2), Conditioning.cat([cond, cond])
        given = arguments(x_t, t, cond, dtype=self.dtype)
        handles = (ctypes.c_void_p * len(given))(*(self._lend(each) for each in given))  # they become the library's
        answer = ctypes.c_void_p()
        self._must(
            self._library.AOTInductorModelContainerRun(
                self._container,
                handles,
                ctypes.c_size_t(len(given)),
                ctypes.byref(answer),
                ctypes.c_size_t(1),
                None,
                None,
            )
        )
        try:
            return self._copied(answer, x_t.shape)[:rows]
        finally:
            self._torch.aoti_torch_delete_tensor_object(answer)

    def _lend(self, x: Tensor) -> ctypes.c_void_p:
        """A handle to a tensor that shares its memory."""
        handle = ctypes.c_void_p()
        self._must(
            self._torch.aoti_torch_create_tensor_from_blob(
                ctypes.c_void_p(x.data_ptr()),
                ctypes.c_int64(x.ndim),
                (ctypes.c_int64 * x.ndim)(*x.shape),
                (ctypes.c_int64 * x.ndim)(*x.stride()),
                ctypes.c_int64(0),
                ctypes.c_int32(self._numbers[x.dtype]),
                ctypes.c_int32(self._torch.aoti_torch_device_type_cpu()),
                ctypes.c_int32(0),
                ctypes.byref(handle),
            )
        )
        return handle

    def _copied(self, handle: ctypes.c_void_p, shape: torch.Size) -> Tensor:
        data, strides = ctypes.c_void_p(), ctypes.POINTER(ctypes.c_int64)()
        self._must(self._torch.aoti_torch_get_data_ptr(handle, ctypes.byref(data)))
        self._must(self._torch.aoti_torch_get_strides(handle, ctypes.byref(strides)))
        assert data.value is not None
        memory = (ctypes.c_byte * (shape.numel() * self.dtype.itemsize)).from_address(data.value)
        return torch.frombuffer(memory, dtype=self.dtype).as_strided(shape, strides[: len(shape)]).clone()

    def _must(self, status: int) -> None:
        if status:
            said = self._library.AOTInductorGetLastError() or b""
            raise RuntimeError(f"the compiled network failed: {said.decode(errors='replace') or f'status {status}'}")
