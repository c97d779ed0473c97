"""Memory of the driver double: addresses that no other memory has, poison, and faults for what CUDA leaves undefined.

Device memory lies at a host address plus ``DEVICE``, so that code that mixes the two up finds nothing there. Blocks are
full of 0xFF, which is NaN as a float, when they are allocated and again when they are freed, and no address is used
twice.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DEVICE = 1 << 56
"""Distance from the bytes of a device block to its address: reading there without the driver ends the process."""

ALIGNMENT = 256
POISON = 0xFF

Bytes = npt.NDArray[np.uint8]


class DriverMisuseError(AssertionError):
    """Wrong use of the driver that CUDA would answer with undefined behaviour, or not at all."""


@dataclass(eq=False)
class Allocation:
    """A block: ``device`` memory, or ``pinned`` host memory.

    Attributes:
        kind: ``device`` or ``pinned``.
        start: Address on the host of the first byte.
        data: The bytes.
        device: Index of the device.
        mapped: Host memory has an address on the device.
        alive: It was not freed.
    """

    kind: str
    start: int
    data: Bytes
    device: int
    mapped: bool = False
    alive: bool = True

    @property
    def address(self) -> int:
        return self.start + DEVICE if self.kind == "device" else self.start

    def __str__(self) -> str:
        return f"{self.kind} block of {self.data.size} bytes at {self.address:#x}"


@dataclass(frozen=True)
class Box:
    """Planes of rows of bytes at an address, as in the driver's copies."""

    kind: str
    address: int
    row_bytes: int
    rows: int
    planes: int
    row_pitch: int
    plane_pitch: int

    @property
    def span(self) -> int:
        return (self.planes - 1) * self.plane_pitch + (self.rows - 1) * self.row_pitch + self.row_bytes


class Memory:
    """All blocks of the double, alive and freed."""

    def __init__(self) -> None:
        self.blocks: list[Allocation] = []

    def allocate(self, kind: str, size: int, device: int, mapped: bool = False) -> Allocation:
        storage = np.full(size + ALIGNMENT, POISON, np.uint8)
        start = -(-storage.ctypes.data // ALIGNMENT) * ALIGNMENT
        first = start - storage.ctypes.data
        block = Allocation(kind, start, storage[first : first + size], device, mapped)
        self.blocks.append(block)
        return block

    def free(self, address: int, kind: str) -> Allocation:
        block = next((block for block in self.blocks if block.address == address and block.kind == kind), None)
        if block is None:
            raise DriverMisuseError(f"{address:#x} is freed, which is no {kind} block")
        if not block.alive:
            raise DriverMisuseError(f"{block} is freed twice")
        block.alive = False
        block.data[:] = POISON
        return block

    def find(self, kind: str, address: int, size: int) -> Allocation | None:
        """Return the block of some bytes, None for host memory that is not page-locked.

        Raises:
            DriverMisuseError: The bytes were freed, are in no block of the device, or only some of them are in one.
        """
        host = address - DEVICE if kind == "device" else address
        for block in self.blocks:
            if not block.start <= host < block.start + max(block.data.size, 1):
                continue
            if kind == "device" and block.kind != "device" and not block.mapped:
                raise DriverMisuseError(f"{block} is used by its address on the device, but it is not mapped")
            if kind == "host" and block.kind == "device":
                break
            if not block.alive:
                raise DriverMisuseError(f"{block} is used after it was freed")
            if host + size > block.start + block.data.size:
                raise DriverMisuseError(f"{size} bytes at {address:#x} end outside of the {block}")
            return block
        if kind == "device":
            raise DriverMisuseError(f"{size} bytes at {address:#x} are in no block of the device")
        if address >= DEVICE:
            raise DriverMisuseError(f"{address:#x} is on the device, expected host memory")
        return None

    def view(self, kind: str, address: int, size: int) -> Bytes:
        """Return some bytes for reading and writing."""
        block = self.find(kind, address, size)
        if block is None:
            return host_bytes(address, size)
        first = address - block.start - (DEVICE if kind == "device" else 0)
        return block.data[first : first + size]

    def box(self, box: Box) -> Bytes:
        """Return the bytes of a box (planes, rows, row_bytes)."""
        data = self.view(box.kind, box.address, box.span)
        shape, strides = (box.planes, box.rows, box.row_bytes), (box.plane_pitch, box.row_pitch, 1)
        return np.lib.stride_tricks.as_strided(data, shape, strides)

    def find_box(self, box: Box) -> Allocation | None:
        return self.find(box.kind, box.address, box.span)

    def alive(self) -> list[str]:
        return [str(block) for block in self._alive()]

    def used(self, device: int) -> int:
        """Return the size of all blocks of a device, in bytes."""
        return sum(block.data.size for block in self._alive() if block.kind == "device" and block.device == device)

    def _alive(self) -> Iterable[Allocation]:
        return (block for block in self.blocks if block.alive)


def host_bytes(address: int, size: int) -> Bytes:
    if not address or address >= DEVICE:
        raise DriverMisuseError(f"{address:#x} is not host memory")
    block: Any = (ctypes.c_ubyte * size).from_address(address)
    return np.frombuffer(block, np.uint8)
