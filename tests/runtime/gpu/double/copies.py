"""The calls of the driver double on memory: allocation, page-locking, and copies, which run late like all work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .memory import DEVICE, Allocation, Box, DriverMisuseError, Memory
from .streams import StreamCalls
from .work import StatusError, Work

INVALID_VALUE, OUT_OF_MEMORY = 1, 2
KINDS = {1: "host", 2: "device"}
MAX_PITCH = 2**31 - 1
MAPPED = 2
MEMORY_TYPE, ORDINAL = 2, 9  # CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL


class MemoryCalls:
    """Memory of all devices. ``functions`` are the driver's, with plain arguments."""

    def __init__(self, streams: StreamCalls, device: Callable[[], int], capacity: Callable[[], int]) -> None:
        self.memory = Memory()
        self._streams, self._device, self._capacity = streams, device, capacity
        self.functions: dict[str, Callable[..., object]] = {
            "cuMemGetInfo_v2": self._info,
            "cuMemAlloc_v2": self._allocate,
            "cuMemFree_v2": lambda address: self._free(address, "device"),
            "cuMemHostAlloc": self._allocate_host,
            "cuMemFreeHost": lambda address: self._free(address, "pinned"),
            "cuMemHostGetDevicePointer_v2": self._device_pointer,
            "cuMemcpyHtoDAsync_v2": lambda device, host, size, stream: self._copy(
                stream, _line("device", device, size), _line("host", host, size)
            ),
            "cuMemcpyDtoHAsync_v2": lambda host, device, size, stream: self._copy(
                stream, _line("host", host, size), _line("device", device, size)
            ),
            "cuMemcpyDtoDAsync_v2": lambda target, source, size, stream: self._copy(
                stream, _line("device", target, size), _line("device", source, size)
            ),
            "cuMemcpy2DAsync_v2": lambda arguments, stream: self._copy(
                stream, _box(arguments, "target"), _box(arguments, "source")
            ),
            "cuMemcpy3DAsync_v2": lambda arguments, stream: self._copy(
                stream, _box(arguments, "target"), _box(arguments, "source")
            ),
            "cuPointerGetAttribute": self._attribute,
        }

    def uses(self, stream: int, boxes: list[Box]) -> Callable[[], list[Allocation]]:
        """Return a function that finds the blocks of some boxes, and refuses those of another device."""
        device = self._streams.stream(stream).device

        def find() -> list[Allocation]:
            blocks = [block for box in boxes if (block := self.memory.find_box(box))]
            for block in blocks:
                if block.kind == "device" and block.device != device:
                    raise DriverMisuseError(f"{block} of device {block.device} is used in a stream of device {device}")
            return blocks

        return find

    def _info(self, free: Any, total: Any) -> None:
        total.value = self._capacity()
        free.value = total.value - self.memory.used(self._device())

    def _allocate(self, address: Any, size: int) -> None:
        self._streams.refuse_capture()
        if not size:
            raise StatusError(INVALID_VALUE)
        if size > self._capacity() - self.memory.used(self._device()):
            raise StatusError(OUT_OF_MEMORY)
        address.value = self.memory.allocate("device", size, self._device()).address

    def _allocate_host(self, address: Any, size: int, flags: int) -> None:
        self._streams.refuse_capture()
        if not size:
            raise StatusError(INVALID_VALUE)
        address.value = self.memory.allocate("pinned", size, self._device(), bool(flags & MAPPED)).address

    def _free(self, address: int, kind: str) -> None:
        self._streams.refuse_capture()
        self._streams.work.check_idle(self.memory.free(address, kind))

    def _device_pointer(self, pointer: Any, address: int, flags: int) -> None:
        block = self.memory.find("host", address, 1)
        if block is None or not block.mapped:
            raise StatusError(INVALID_VALUE)
        pointer.value = address + DEVICE

    def _attribute(self, value: Any, key: int, address: int) -> None:
        if key == MEMORY_TYPE:
            value.value = 1 if address < DEVICE else 2
            if self.memory.find(KINDS[value.value], address, 1) is None:
                raise StatusError(INVALID_VALUE)
            return
        if key != ORDINAL:
            known = f"{MEMORY_TYPE} and {ORDINAL}"
            raise DriverMisuseError(f"attribute {key} of an address is asked for, the double knows {known}")
        block = self.memory.find("device", address, 1)
        value.value = block.device if block else 0

    def _copy(self, stream: int, target: Box, source: Box) -> None:
        """Queue a copy; where a side is host memory that is not page-locked, do as CUDA does with it."""
        if target.row_bytes * target.rows * target.planes == 0:
            return
        pageable = [box for box in (target, source) if box.kind == "host" and self.memory.find_box(box) is None]
        if pageable and self._streams.stream(stream).capture:
            raise DriverMisuseError("a copy of host memory that is not page-locked is captured")
        name = f"a copy from {source.kind} to {target.kind}"
        if source in pageable and target.kind == "device":  # staged before the call returns
            data = self.memory.box(source).copy()
            check = self.uses(stream, [target])
            self._streams.add(stream, Work(name, check, lambda: np.copyto(self.memory.box(target), data)))
            return
        check = self.uses(stream, [target, source])
        copy = Work(name, check, lambda: np.copyto(self.memory.box(target), self.memory.box(source)))
        task = self._streams.add(stream, copy)
        if target in pageable or source.kind == target.kind == "host":  # the call returns when it is done
            self._streams.work.finish(task)


def _line(kind: str, address: int, size: int) -> Box:
    return Box(kind, address, size, 1, 1, size, size)


def _box(arguments: Any, side: str) -> Box:
    """Return one side of a Copy2D or Copy3D, checked as CUDA checks it."""
    if any(getattr(arguments, f"{side}_{name}", 0) for name in ("x", "y", "z", "lod", "array", "reserved")):
        raise DriverMisuseError(f"{side} of a copy has an offset or an array, which the double does not know")
    kind = KINDS[getattr(arguments, f"{side}_kind")]
    other = getattr(arguments, f"{side}_{'device' if kind == 'host' else 'host'}")
    address, pitch = (getattr(arguments, f"{side}_{name}") or 0 for name in (kind, "pitch"))
    height, planes = getattr(arguments, f"{side}_height", arguments.height), getattr(arguments, "depth", 1)
    if other or pitch < arguments.width or pitch > MAX_PITCH or height < arguments.height:
        raise StatusError(INVALID_VALUE)
    return Box(kind, address, arguments.width, arguments.height, planes, pitch, pitch * height)
