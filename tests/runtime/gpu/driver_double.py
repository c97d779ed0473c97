"""A CUDA driver over host memory."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from typing import Any


class Driver:
    """libcuda over host memory: what is alive in it, and how often each function was called."""

    def __init__(self) -> None:
        self.alive: dict[int, Any] = {}
        self.contexts = 0
        self.calls: Counter[str] = Counter()
        self.failing: dict[str, int] = {}
        self.gpus = 1
        self.known: dict[str, Callable[..., object]] = {
            "cuDeviceGetCount": lambda count: setattr(count._obj, "value", self.gpus),
            "cuDeviceGetName": lambda name, size, device: setattr(name, "value", b"Orin"),
            "cuDeviceGetAttribute": lambda value, key, device: setattr(
                value._obj, "value", {16: 16, 18: 1, 19: 1, 75: 8, 76: 7}[key]
            ),
            "cuDevicePrimaryCtxRetain": lambda context, device: self._count(1),
            "cuDevicePrimaryCtxRelease_v2": lambda device: self._count(-1),
            "cuGetErrorName": self._name,
            "cuStreamCreate": lambda stream, flags: self._allocate(stream, 1),
            "cuStreamDestroy_v2": lambda stream: self.alive.pop(stream),
            "cuMemAlloc_v2": self._allocate,
            "cuMemHostAlloc": lambda host, size, flags: self._allocate(host, size),
            "cuMemFree_v2": lambda gpu: self.alive.pop(gpu),
            "cuMemFreeHost": lambda host: self.alive.pop(host),
            "cuMemcpyHtoDAsync_v2": lambda gpu, host, size, stream: ctypes.memmove(gpu, host, size),
            "cuMemcpyDtoHAsync_v2": lambda host, gpu, size, stream: ctypes.memmove(host, gpu, size),
        }

    def __getattr__(self, name: str) -> Callable[..., int]:
        def function(*args: Any) -> int:
            self.calls[name] += 1
            if name in self.known and name not in self.failing:
                self.known[name](*args)
            return self.failing.get(name, 0)

        return function

    def _allocate(self, address: Any, size: int) -> None:
        block = ctypes.create_string_buffer(size)
        address._obj.value = ctypes.addressof(block)
        self.alive[ctypes.addressof(block)] = block

    def _count(self, change: int) -> None:
        self.contexts += change

    def _name(self, status: int, name: Any) -> None:
        name._obj.value = {2: b"CUDA_ERROR_OUT_OF_MEMORY", 100: b"CUDA_ERROR_NO_DEVICE"}.get(status)
