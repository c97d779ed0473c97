"""Memory for a GPU: on the device, page-locked on the host, and arrays of the caller that are page-locked for a while.

Copies between page-locked memory and a device run beside the host's work; copies of other host memory do not. Free
memory only when all work that uses it is done.
"""

from __future__ import annotations

import ctypes
import math
from ctypes import c_int, c_uint64, c_void_p
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError

from .devices import Device
from .streams import Stream

_MEMORY_TYPE, _HOST = 2, 1  # CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_MEMORYTYPE_HOST
_PORTABLE, _MAPPED = 1, 2  # CU_MEMHOSTALLOC_PORTABLE and _DEVICEMAP, and the same flags of CU_MEMHOSTREGISTER


class DeviceMemory:
    """A block of a GPU's memory.

    Attributes:
        address: Address on the GPU; 0 after ``close``.
        nbytes: Size in bytes.
    """

    def __init__(self, device: Device, nbytes: int) -> None:
        self._device, self.nbytes = device, nbytes
        address = c_uint64()
        with device:
            device.call("cuMemAlloc_v2", ctypes.byref(address), nbytes)
        self.address = address.value

    def close(self) -> None:
        """Free the block; harmless when called twice."""
        address, self.address = self.address, 0
        if address:
            with self._device as device:
                device.call("cuMemFree_v2", address)


class PinnedMemory:
    """A block of page-locked host memory.

    Attributes:
        address: Address on the host; 0 after ``close``.
        nbytes: Size in bytes.
        mapped: Whether the GPU can address the block, see ``device_address``.
    """

    def __init__(self, device: Device, nbytes: int, mapped: bool = False) -> None:
        self._device, self.nbytes, self.mapped = device, nbytes, mapped
        address = c_void_p()
        with device:
            device.call("cuMemHostAlloc", ctypes.byref(address), nbytes, _PORTABLE | (_MAPPED if mapped else 0))
        self.address = address.value or 0

    @property
    def device_address(self) -> int:
        """Address of the block on the GPU; a ValueError for memory that is not mapped."""
        if not self.mapped:
            raise ValueError("page-locked memory is not mapped: allocate it with mapped=True to address it on the GPU")
        return _device_address(self._device, self.address)

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return a view of the block's start as an array, valid until ``close``; a ValueError if it is too large."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > self.nbytes:
            raise ValueError(f"array of {size} bytes, expected at most {self.nbytes}: allocate more page-locked memory")
        block = (ctypes.c_ubyte * size).from_address(self.address)
        return np.ndarray(shape, dtype, buffer=memoryview(block))

    def close(self) -> None:
        """Free the block; harmless when called twice."""
        address, self.address = self.address, 0
        if address:
            with self._device as device:
                device.call("cuMemFreeHost", address)


class RegisteredMemory:
    """An array of the caller that is page-locked until ``close``, or inside ``with``; ``registered`` makes it.

    Attributes:
        address: Address of the array's first value on the host.
    """

    def __init__(self, device: Device, array: npt.NDArray[Any]) -> None:
        self._device, self._array = device, array
        self.address = array.ctypes.data
        spans = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
        self._first = self.address + sum(span for span in spans if span < 0)
        nbytes = sum(map(abs, spans)) + array.itemsize
        with device:
            device.call("cuMemHostRegister_v2", self._first, nbytes, _PORTABLE | _MAPPED)

    @property
    def device_address(self) -> int:
        """Address of the array's first value on the GPU, on devices that can map host memory."""
        return _device_address(self._device, self._first) + self.address - self._first

    def close(self) -> None:
        """Unlock the array; harmless when called twice."""
        first, self._first = self._first, 0
        if first:
            with self._device as device:
                device.call("cuMemHostUnregister", first)

    def __enter__(self) -> RegisteredMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def registered(device: Device, array: npt.NDArray[Any]) -> RegisteredMemory:
    """Page-lock a caller's array, so that copies of it run beside the host's work.

    Args:
        device: Device whose context registers the memory.
        array: Writeable array; all bytes between its first and its last value are locked.

    Returns:
        The lock: a context manager that also has ``close``.

    Raises:
        CCNetError: The array, or a part of it, is registered already, or the system cannot lock so much.
    """
    return RegisteredMemory(device, array)


def is_page_locked(device: Device, array: npt.NDArray[Any]) -> bool:
    """Return whether a copy between a device and an array of the host runs beside the host's work.

    Args:
        device: A device, whose driver knows the page-locked memory of the process.
        array: Array with strides that are not negative.

    Returns:
        Whether the first and the last byte are page-locked, by whichever library.
    """
    last = array.ctypes.data + sum((size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True))
    kind = c_int()
    try:
        with device:
            for address in (array.ctypes.data, last):
                device.call("cuPointerGetAttribute", ctypes.byref(kind), _MEMORY_TYPE, address)
    except CCNetError:  # the driver does not know the address
        return False
    return kind.value == _HOST


def _device_address(device: Device, address: int) -> int:
    found = c_uint64()
    with device:
        device.call("cuMemHostGetDevicePointer_v2", ctypes.byref(found), address, 0)
    return found.value


class Buffer:
    """A block of GPU memory and a page-locked host block of the same size. It only grows."""

    def __init__(self, device: Device, stream: Stream) -> None:
        self._device, self._stream = device, stream
        self._gpu: DeviceMemory | None = None
        self._host: PinnedMemory | None = None

    @property
    def address(self) -> int:
        """Address of the GPU block; 0 before the first ``view``."""
        return self._gpu.address if self._gpu else 0

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the host block as an array, after growing to hold it; valid until the next growth or ``close``."""
        size = math.prod(shape) * dtype.itemsize
        if self._host is None or size > self._host.nbytes:
            self._host = self._grow(size)
        return self._host.array(shape, dtype)

    def upload(self, size: int) -> None:
        """Queue the copy of the first ``size`` bytes to the GPU."""
        if self._host:
            self._device.call("cuMemcpyHtoDAsync_v2", self.address, self._host.address, size, self._stream.handle)

    def download(self, size: int) -> None:
        """Queue the copy of the first ``size`` bytes to the host."""
        if self._host:
            self._device.call("cuMemcpyDtoHAsync_v2", self._host.address, self.address, size, self._stream.handle)

    def close(self) -> None:
        """Free both blocks, after the work of the stream: a run that failed leaves copies behind."""
        blocks = [block for block in (self._gpu, self._host) if block]
        self._gpu = self._host = None
        try:
            if blocks:
                self._stream.synchronize()
        finally:
            for block in blocks:
                block.close()

    def _grow(self, size: int) -> PinnedMemory:
        self.close()
        self._gpu = DeviceMemory(self._device, size)
        return PinnedMemory(self._device, size)
