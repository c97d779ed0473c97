"""Memory for a GPU: on the device, and page-locked on the host.

Copies between page-locked memory and a device run beside the host's work; copies of other host memory do not. Free
memory only when all work that uses it is done.
"""

from __future__ import annotations

import ctypes
import math
from ctypes import c_int, c_uint64, c_void_p
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError

from .devices import Device
from .streams import Stream

_MEMORY_TYPE, _HOST = 2, 1  # CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_MEMORYTYPE_HOST
_PORTABLE, _MAPPED = 1, 2  # CU_MEMHOSTALLOC_PORTABLE and _DEVICEMAP


class Memory:
    """A block that the driver allocated.

    Attributes:
        address: Address on the GPU or on the host; 0 after ``close``.
        nbytes: Size in bytes.
    """

    _free_call: str
    """The driver's call that frees a block."""

    def __init__(self, device: Device, nbytes: int, address: int) -> None:
        self._device, self.nbytes, self.address = device, nbytes, address

    def close(self) -> None:
        """Free the block; harmless when called twice."""
        address, self.address = self.address, 0
        if address:
            with self._device as device:
                device.call(self._free_call, address)


class DeviceMemory(Memory):
    """A block of a GPU's memory."""

    _free_call = "cuMemFree_v2"

    def __init__(self, device: Device, nbytes: int) -> None:
        address = c_uint64()
        with device:
            device.call("cuMemAlloc_v2", ctypes.byref(address), nbytes)
        super().__init__(device, nbytes, address.value)


class PinnedMemory(Memory):
    """A block of page-locked host memory.

    Attributes:
        mapped: Whether the GPU can address the block, see ``device_address``.
    """

    _free_call = "cuMemFreeHost"

    def __init__(self, device: Device, nbytes: int, mapped: bool = False) -> None:
        self.mapped = mapped
        address = c_void_p()
        with device:
            device.call("cuMemHostAlloc", ctypes.byref(address), nbytes, _PORTABLE | (_MAPPED if mapped else 0))
        super().__init__(device, nbytes, address.value or 0)

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
