"""The part of CUDA that an engine needs: the list of GPUs, memory, copies and a stream.

It calls the driver library, which every NVIDIA driver and every Jetson has. The runtime library (libcudart) and its
Python bindings come with a toolkit only: TensorRT links its own statically, and its wheels contain neither.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError

from .out_of_memory import OutOfMemoryError, is_out_of_memory

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (POINTER(c_void_p),),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
}
"""Argument types of each driver function that is used; without them ctypes would cut addresses to 32 bits."""

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no implicit wait for the legacy default stream


def driver() -> Any:
    """Load the CUDA driver library; a CCNetError if none is installed."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise CCNetError(f"no CUDA driver ({name} is not found): install NVIDIA's driver or use onnxruntime") from error
    for function, types in _SIGNATURES.items():
        getattr(library, function).argtypes = types
    return library


@functools.cache
def gpus() -> tuple[str, ...]:
    """Return name and architecture of each GPU, such as ``Orin (sm_87)``; a CCNetError says why there is none."""
    library = driver()
    count = c_int()
    _check(library, "cuInit", library.cuInit(0))
    _check(library, "cuDeviceGetCount", library.cuDeviceGetCount(ctypes.pointer(count)))
    if not count.value:
        raise CCNetError("the CUDA driver finds no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use onnxruntime")
    return tuple(_describe(library, index) for index in range(count.value))


def has_gpu() -> bool:
    """Return whether there is a CUDA driver with at least one GPU."""
    try:
        return bool(gpus())
    except CCNetError:
        return False


def _describe(library: Any, index: int) -> str:
    name = ctypes.create_string_buffer(128)
    device, major, minor = c_int(), c_int(), c_int()
    _check(library, "cuDeviceGet", library.cuDeviceGet(ctypes.pointer(device), index))
    _check(library, "cuDeviceGetName", library.cuDeviceGetName(name, len(name), device))
    for attribute, value in ((_MAJOR, major), (_MINOR, minor)):
        status = library.cuDeviceGetAttribute(ctypes.pointer(value), attribute, device)
        _check(library, "cuDeviceGetAttribute", status)
    return f"{name.value.decode(errors='replace')} (sm_{major.value}{minor.value})"


def _check(library: Any, function: str, status: int) -> None:
    if not status:
        return
    name = c_char_p()
    library.cuGetErrorName(status, ctypes.pointer(name))
    reason = name.value.decode() if name.value else f"error {status}"
    if is_out_of_memory(reason):
        raise OutOfMemoryError(f"CUDA's {function} failed with {reason}: use smaller tiles or free GPU memory")
    raise CCNetError(f"CUDA's {function} failed with {reason}")


class Device:
    """The primary context of a GPU, which TensorRT uses too; current on this thread inside ``with``."""

    def __init__(self, index: int = 0) -> None:
        names = gpus()
        if not 0 <= index < len(names):
            raise CCNetError(f"device is {index}, expected 0 to {len(names) - 1}: {', '.join(names)}")
        self.name = names[index]
        self._library = driver()
        self._device = c_int()
        self._context = c_void_p()
        self.call("cuDeviceGet", ctypes.pointer(self._device), index)
        self.call("cuDevicePrimaryCtxRetain", ctypes.pointer(self._context), self._device)

    def call(self, function: str, *args: Any) -> None:
        """Call a driver function; a CCNetError has CUDA's name of the error."""
        _check(self._library, function, getattr(self._library, function)(*args))

    def close(self) -> None:
        """Release the context."""
        self.call("cuDevicePrimaryCtxRelease_v2", self._device)

    def __enter__(self) -> Device:
        self.call("cuCtxPushCurrent_v2", self._context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call("cuCtxPopCurrent_v2", ctypes.pointer(c_void_p()))


class Stream:
    """A CUDA stream; ``handle`` is the number that ``execute_async_v3`` takes."""

    def __init__(self, device: Device) -> None:
        self._device = device
        handle = c_void_p()
        device.call("cuStreamCreate", ctypes.pointer(handle), _NON_BLOCKING)
        self.handle = handle.value or 0

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        self._device.call("cuStreamSynchronize", self.handle)

    def close(self) -> None:
        """Destroy the stream."""
        self._device.call("cuStreamDestroy_v2", self.handle)


class Buffer:
    """A block of GPU memory and a page-locked host block of the same size. It only grows."""

    def __init__(self, device: Device, stream: Stream) -> None:
        self._device, self._stream = device, stream
        self._size = 0
        self._host = c_void_p()
        self._gpu = c_uint64()

    @property
    def address(self) -> int:
        """Address of the GPU block."""
        return self._gpu.value

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the host block as an array, after growing to hold it; valid until the next growth or ``close``."""
        size = int(np.prod(shape)) * dtype.itemsize
        if size > self._size:
            self._grow(size)
        block = (ctypes.c_ubyte * size).from_address(self._host.value or 0)
        return np.ndarray(shape, dtype, buffer=memoryview(block))

    def upload(self, size: int) -> None:
        """Queue the copy of the first ``size`` bytes to the GPU."""
        self._device.call("cuMemcpyHtoDAsync_v2", self._gpu, self._host, size, self._stream.handle)

    def download(self, size: int) -> None:
        """Queue the copy of the first ``size`` bytes to the host."""
        self._device.call("cuMemcpyDtoHAsync_v2", self._host, self._gpu, size, self._stream.handle)

    def close(self) -> None:
        """Free both blocks."""
        gpu, host = self._gpu, self._host
        self._size, self._gpu, self._host = 0, c_uint64(), c_void_p()
        if gpu.value:
            self._device.call("cuMemFree_v2", gpu)
        if host.value:
            self._device.call("cuMemFreeHost", host)

    def _grow(self, size: int) -> None:
        self.close()
        self._device.call("cuMemAlloc_v2", ctypes.pointer(self._gpu), size)
        self._device.call("cuMemHostAlloc", ctypes.pointer(self._host), size, 0)
        self._size = size
