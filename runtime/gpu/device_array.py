"""Arrays in GPU memory that other libraries take without the host, by DLPack or ``__cuda_array_interface__``."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from . import dlpack
from .copies import Block, copy
from .devices import Device
from .memory import DeviceMemory
from .streams import Event, Stream

LEGACY_STREAM = 1
"""Number of the legacy default stream in DLPack and in ``__cuda_array_interface__``."""

_NO_ORDER = -1  # of DLPack's ``stream``: the consumer needs none


class DeviceArray:
    """An array in GPU memory. ``torch.from_dlpack`` and ``cupy.from_dlpack`` take it without a copy.

    The memory lives as long as this object or a consumer of it. Whoever reads it on another stream than the one that
    wrote it must be ordered after that: DLPack's ``stream`` does so.

    Attributes:
        device: The GPU.
        address: Address of the first value on the GPU.
        shape: Length of each axis.
        strides: Bytes from one value to the next along each axis.
        dtype: Type of a value.
        owner: Object that keeps the memory alive.
        ready: Event after which the values are written; None if they are. The event must live as long as the owner.
        read_only: Nobody may write to the memory.
    """

    def __init__(
        self,
        device: Device,
        address: int,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        *,
        strides: tuple[int, ...] | None = None,
        owner: object = None,
        ready: Event | None = None,
        read_only: bool = False,
    ) -> None:
        self.device, self.address, self.shape, self.dtype = device, address, tuple(shape), np.dtype(dtype)
        self.strides = dlpack.contiguous_strides(self.shape, self.dtype.itemsize) if strides is None else tuple(strides)
        self.owner, self.ready, self.read_only = owner, ready, read_only

    @classmethod
    def empty(cls, device: Device, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> DeviceArray:
        """Return a new array in C order, whose memory is freed with its last user, after all work on the GPU."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = DeviceMemory(device, max(size, 1))
        owner = _Owner()
        weakref.finalize(owner, _free, memory, device)
        return cls(device, memory.address, shape, dtype, owner=owner)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """True if the values follow each other in C order, without a gap."""
        packed = dlpack.contiguous_strides(self.shape, self.dtype.itemsize)
        return 0 in self.shape or all(
            size == 1 or stride == expected
            for size, stride, expected in zip(self.shape, self.strides, packed, strict=True)
        )

    def wait(self, stream: Stream) -> None:
        """Let the work that a stream gets from now on wait until the values are written."""
        self._order(stream.handle)

    def download(self, stream: Stream | None = None) -> npt.NDArray[Any]:
        """Return a copy in host memory, with the strides of this array; the host waits for it.

        Args:
            stream: Stream that copies, which waits until the values are written. None is a stream of its own.

        Returns:
            The copy, which belongs to the caller.
        """
        first, size = self._span()
        host = np.empty(size, np.uint8)
        self._copy(Block("host", host.ctypes.data, size), stream)
        return np.ndarray(self.shape, self.dtype, host, self.address - first, self.strides)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's type of the device, CUDA, and its number."""
        return dlpack.CUDA, self.device.index

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a DLPack capsule.

        Args:
            stream: Stream of the consumer, which waits until the values are written: a handle, 1 or None for the
                legacy default stream, 2 for that of the thread, -1 for no waiting.
            max_version: Newest DLPack version that the consumer knows; None for one before 1.0.
            dl_device: Type and number of the device where the consumer wants the array: this GPU, or the CPU, which
                gets a copy.
            copy: True for a copy, False for none, None for one only where it is needed.

        Returns:
            The capsule.

        Raises:
            BufferError: The array cannot be passed on like this.
        """
        if dl_device is not None and tuple(dl_device) not in ((dlpack.CPU, 0), self.__dlpack_device__()):
            raise BufferError(f"the array is on {self.__dlpack_device__()}, and cannot be moved to {dl_device}")
        if dl_device is not None and dl_device[0] == dlpack.CPU:
            if copy is False:
                raise BufferError("the array is on a GPU, and cannot be read on the CPU without a copy")
            return dlpack.to_capsule(_host_tensor(self.download()), max_version)
        if copy:
            return self._copied().__dlpack__(stream=stream, max_version=max_version)
        if stream == 0:
            raise BufferError("stream is 0, which DLPack leaves undefined: pass 1 for the legacy default stream")
        if stream != _NO_ORDER:
            self._order(LEGACY_STREAM if stream is None else stream)
        return dlpack.to_capsule(self._tensor(), max_version)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of CUDA's array interface; its stream is the legacy one, which waits until the values are written.

        Returns:
            The interface.
        """
        if self.ready:
            self._order(LEGACY_STREAM)
        return {
            "shape": self.shape,
            "strides": None if self.is_contiguous else self.strides,
            "typestr": self.dtype.str,
            "data": (self.address, self.read_only),
            "version": 3,
            "stream": LEGACY_STREAM if self.ready else None,
        }

    def _order(self, stream: int) -> None:
        if self.ready:
            with self.device as device:
                device.call("cuStreamWaitEvent", stream, self.ready.handle, 0)

    def _tensor(self) -> dlpack.Tensor:
        return dlpack.Tensor(
            address=self.address,
            shape=self.shape,
            strides=self.strides,
            dtype=self.dtype,
            device=self.__dlpack_device__(),
            owner=(self.owner, self.ready),
            read_only=self.read_only,
        )

    def _span(self) -> tuple[int, int]:
        """Return the address of the lowest value and the number of bytes up to the end of the highest."""
        if 0 in self.shape:
            return self.address, 0
        spans = [(size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)]
        return self.address + sum(span for span in spans if span < 0), sum(map(abs, spans)) + self.dtype.itemsize

    def _copied(self) -> DeviceArray:
        """Return a copy on the same device, with the same strides, that is complete."""
        first, size = self._span()
        whole = DeviceArray.empty(self.device, (size,), np.uint8)
        self._copy(Block("device", whole.address, size), None)
        address = whole.address + self.address - first
        return DeviceArray(self.device, address, self.shape, self.dtype, strides=self.strides, owner=whole.owner)

    def _copy(self, target: Block, stream: Stream | None) -> None:
        """Copy the bytes between the first and the last value, and wait."""
        first, size = self._span()
        with self.device as device:
            copier = stream or Stream(device)
            try:
                self.wait(copier)
                copy(copier, target, Block("device", first, size))
                copier.synchronize()
            finally:
                if stream is None:
                    copier.close()


class _Owner:
    """The last reference to a block of memory; its finalizer frees the block."""


def _free(memory: DeviceMemory, device: Device) -> None:
    device.synchronize()  # a consumer's work may still use the memory, on a stream that is not known here
    memory.close()


def _host_tensor(array: npt.NDArray[Any]) -> dlpack.Tensor:
    return dlpack.Tensor(
        address=array.ctypes.data,
        shape=array.shape,
        strides=array.strides,
        dtype=array.dtype,
        device=(dlpack.CPU, 0),
        owner=array,
        is_copy=True,
    )
