"""Memory that grows with the shapes of tiles and frames, and is allocated for a new shape only."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from ccnet.runtime.gpu.cuda import Block, Device, DeviceMemory, PinnedMemory, Stream, copy


class GrowingMemory:
    """A block of GPU memory. Grow it only while no work uses it."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._block: DeviceMemory | None = None

    @property
    def address(self) -> int:
        """Address on the GPU, 0 before the first ``reserve``."""
        return self._block.address if self._block else 0

    def reserve(self, nbytes: int) -> None:
        """Make the block large enough; an OutOfMemoryError leaves it empty."""
        if self._block is None or self._block.nbytes < nbytes:
            self.close()
            self._block = DeviceMemory(self._device, nbytes)

    def close(self) -> None:
        """Free the block; harmless when called twice."""
        block, self._block = self._block, None
        if block:
            block.close()


class TransferMemory:
    """GPU memory that the host writes or reads, by page-locked host memory of the same size.

    Where host and GPU share one memory, as on a Jetson, it is a single block that both address, and nothing is copied.

    Attributes:
        is_shared: Whether host and GPU address the same block.
        address: Address on the GPU, 0 before the first ``reserve``.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.is_shared = device.is_integrated and device.can_map_host_memory
        self.address = 0
        self._gpu = GrowingMemory(device)
        self._host: PinnedMemory | None = None

    def reserve(self, nbytes: int, host: bool = True) -> None:
        """Make the memory large enough.

        Args:
            nbytes: Size, bytes.
            host: Whether the host will use it. False allocates no host memory unless it is shared.

        Raises:
            OutOfMemoryError: Memory ran out; what could not grow is empty.
        """
        if not self.is_shared:
            self._gpu.reserve(nbytes)
            self.address = self._gpu.address
        if (host or self.is_shared) and (self._host is None or self._host.nbytes < nbytes):
            self._close_host()
            self._host = PinnedMemory(self._device, nbytes, mapped=self.is_shared)
            self.address = self._host.device_address if self.is_shared else self.address

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return the first values in host memory, valid until the memory grows or is closed."""
        if self._host is None:
            raise ValueError("there is no host memory: reserve it")
        return self._host.array(shape, dtype)

    def upload(self, stream: Stream, nbytes: int) -> None:
        """Queue the copy of the first bytes to the GPU; nothing where the memory is shared."""
        if not self.is_shared and self._host:
            copy(stream, Block("device", self.address, nbytes), Block("host", self._host.address, nbytes))

    def download(self, stream: Stream, nbytes: int) -> None:
        """Queue the copy of the first bytes to the host; nothing where the memory is shared."""
        if not self.is_shared and self._host:
            copy(stream, Block("host", self._host.address, nbytes), Block("device", self.address, nbytes))

    def close(self) -> None:
        """Free everything; harmless when called twice."""
        self._gpu.close()
        self._close_host()

    def _close_host(self) -> None:
        host, self._host = self._host, None
        if host:
            host.close()
