"""A CUDA driver over host memory that is as unhelpful as a GPU: work runs late and in any order that CUDA allows.

Code that forgets an event, a synchronisation or the order of freeing may pass on a GPU for years. Here it fails, for
most seeds with a wrong result, and at once with a ``DriverMisuseError`` where the double can tell. See ``double.work``
for the order and ``double.memory`` for the addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import numpy.typing as npt

from ccnet.runtime.gpu import devices, library

from .double.copies import INVALID_VALUE, OUT_OF_MEMORY, MemoryCalls
from .double.memory import Box, DriverMisuseError
from .double.streams import INVALID_HANDLE, StreamCalls
from .double.work import Scheduler, StatusError, Work

__all__ = ["Driver", "DriverMisuseError", "installed"]

INVALID_CONTEXT, CONTEXT_IS_DESTROYED = 201, 709
NEED_NO_CONTEXT = ("cuInit", "cuGetErrorName", "cuDevice", "cuCtxPush", "cuCtxPop", "cuPointerGetAttribute")
FIRST_CONTEXT = 0x1000

Array = npt.NDArray[Any]


class Driver:
    """libcuda over host memory. ``installed`` puts it in place of the real library, and checks it at the end.

    Attributes:
        calls: How often each function was called.
        failing: Function → number of the error that it returns from now on.
        gpus: Number of GPUs.
        name: Name of each GPU.
        attributes: CU_DEVICE_ATTRIBUTE_* → value.
        capacity: Memory of each GPU in bytes.
    """

    error_names: ClassVar = {
        INVALID_VALUE: "INVALID_VALUE",
        OUT_OF_MEMORY: "OUT_OF_MEMORY",
        100: "NO_DEVICE",
        INVALID_CONTEXT: "INVALID_CONTEXT",
        INVALID_HANDLE: "INVALID_HANDLE",
        CONTEXT_IS_DESTROYED: "CONTEXT_IS_DESTROYED",
        900: "STREAM_CAPTURE_UNSUPPORTED",
        901: "STREAM_CAPTURE_INVALIDATED",
        902: "STREAM_CAPTURE_MERGE",
        903: "STREAM_CAPTURE_UNMATCHED",
        904: "STREAM_CAPTURE_UNJOINED",
        905: "STREAM_CAPTURE_ISOLATION",
        907: "CAPTURED_EVENT",
        908: "STREAM_CAPTURE_WRONG_THREAD",
    }

    def __init__(self, seed: int = 0) -> None:
        self.calls: Counter[str] = Counter()
        self.failing: dict[str, int] = {}
        self.gpus, self.name, self.capacity = 1, b"Orin", 8 << 30
        self.attributes = {16: 16, 18: 1, 19: 1, 75: 8, 76: 7}
        self._retained: Counter[int] = Counter()
        self._current = threading.local()
        self._lock = threading.RLock()
        self._streams = StreamCalls(Scheduler(seed), self._device)
        self._blocks = MemoryCalls(self._streams, self._device, lambda: self.capacity)
        self._functions: dict[str, Callable[..., object]] = {
            "cuInit": lambda flags: None,
            "cuGetErrorName": self._error_name,
            "cuDeviceGetCount": lambda count: setattr(count, "value", self.gpus),
            "cuDeviceGet": lambda device, index: setattr(device, "value", index),
            "cuDeviceGetName": lambda name, size, device: setattr(name, "value", self.name),
            "cuDeviceGetAttribute": lambda value, key, device: setattr(value, "value", self.attributes[key]),
            "cuDevicePrimaryCtxRetain": self._retain,
            "cuDevicePrimaryCtxRelease_v2": self._release,
            "cuCtxPushCurrent_v2": self._push,
            "cuCtxPopCurrent_v2": self._pop,
            **self._streams.functions,
            **self._blocks.functions,
            **dict.fromkeys(_KERNEL_CALLS, _refuse_machine_code),
        }
        assert self._functions.keys() <= library.SIGNATURES.keys()

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name not in library.SIGNATURES:
            raise AttributeError(name)
        return lambda *args: self._call(name, args)

    @property
    def contexts(self) -> int:
        """How often primary contexts were retained and not released."""
        return sum(self._retained.values())

    @property
    def alive(self) -> list[str]:
        """Everything that is allocated or created, and not freed or destroyed, in words."""
        objects = [f"{type(thing).__name__} {handle:#x}" for handle, thing in self._streams.objects.items()]
        return self._blocks.memory.alive() + objects

    @property
    def faults(self) -> list[str]:
        """Messages of all faults; clear it in a test that plants one."""
        return self._streams.work.faults

    def used(self, device: int = 0) -> int:
        """Return the size of all blocks of a GPU that are alive, in bytes."""
        return self._blocks.memory.used(device)

    def view(self, address: int, shape: Sequence[int], dtype: npt.DTypeLike = np.uint8) -> Array:
        """Return device memory as an array: for work that ``enqueue`` runs, and for a look from outside."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with self._reporting():
            return self._blocks.memory.view("device", address, size).view(dtype).reshape(shape)

    def enqueue(
        self, stream: int, function: Callable[[], None], uses: Sequence[int] = (), name: str = "a kernel"
    ) -> None:
        """Queue a function on a stream, as ``execute_async_v3`` queues an engine's kernels.

        Args:
            stream: Handle of the stream.
            function: Reads and writes device memory through ``view``, when the stream reaches it.
            uses: Device addresses that it uses, so that freeing them earlier is a fault at once.
            name: Name of the work in faults.
        """
        with self._lock, self._reporting():
            if not self._stack():
                raise DriverMisuseError(f"{name} is queued without a current context")
            boxes = [Box("device", address, 1, 1, 1, 1, 1) for address in uses]
            self._streams.add(stream, Work(name, self._blocks.uses(stream, boxes), function))

    def finish(self) -> None:
        """Run all work that is still queued."""
        with self._lock, self._reporting():
            self._streams.work.finish_all()

    def _call(self, name: str, args: tuple[Any, ...]) -> int:
        with self._lock, self._reporting():
            self.calls[name] += 1
            kinds = library.SIGNATURES[name]
            if len(args) != len(kinds):
                raise DriverMisuseError(f"{name} has {len(args)} arguments, expected {len(kinds)}")
            for kind, arg in zip(kinds, args, strict=True):
                kind.from_param(arg)  # raises what ctypes would
            if name in self.failing:
                return self.failing[name]
            if not (self._stack() or name.startswith(NEED_NO_CONTEXT)):
                return INVALID_CONTEXT
            if name not in self._functions:
                raise DriverMisuseError(f"{name} is called, which the double does not have")
            try:
                self._functions[name](*map(_plain, args))
            except StatusError as status:
                return int(status.args[0])
            return 0

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Keep the message of a failed check, in case that something catches the exception."""
        try:
            yield
        except AssertionError as fault:
            if str(fault) not in self.faults:
                self.faults.append(str(fault))
            raise

    def _stack(self) -> list[int]:
        """Return the indices of the devices whose contexts are current on this thread."""
        if not hasattr(self._current, "stack"):
            self._current.stack = []
        stack: list[int] = self._current.stack
        return stack

    def _device(self) -> int:
        return self._stack()[-1]

    def _retain(self, context: Any, device: int) -> None:
        self._retained[device] += 1
        context.value = FIRST_CONTEXT + device

    def _release(self, device: int) -> None:
        if not self._retained[device]:
            raise DriverMisuseError(f"the context of device {device} is released more often than it was retained")
        self._retained[device] -= 1

    def _push(self, context: int) -> None:
        if not self._retained[context - FIRST_CONTEXT]:
            raise StatusError(CONTEXT_IS_DESTROYED)
        self._stack().append(context - FIRST_CONTEXT)

    def _pop(self, context: Any) -> None:
        if not self._stack():
            raise StatusError(INVALID_CONTEXT)
        context.value = FIRST_CONTEXT + self._stack().pop()

    def _error_name(self, status: int, name: Any) -> None:
        found = self.error_names.get(status)
        name.value = found and f"CUDA_ERROR_{found}".encode()


@contextlib.contextmanager
def installed(driver: Driver) -> Iterator[Driver]:
    """Let the code under test use a double, which must have no fault and nothing alive after the block."""
    with mock.patch.object(library, "driver", lambda: driver):
        _forget()
        try:
            yield driver
            driver.finish()
            assert not driver.faults, driver.faults
            assert not driver.alive, f"not freed: {driver.alive}"
            assert not driver._stack(), "contexts are still current"
        finally:
            _forget()
        assert not driver.contexts


_KERNEL_CALLS = ("cuCtxGetCurrent", "cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel")


def _refuse_machine_code(*arguments: Any) -> None:
    raise AssertionError("the double runs no machine code: test_kernels.py has a driver for it")


def _forget() -> None:
    devices.release_devices()
    devices.gpus.cache_clear()


def _plain(arg: Any) -> Any:
    """Return what an argument is or points to: a number for handles, addresses and sizes."""
    if hasattr(arg, "_obj"):  # byref
        return arg._obj
    if isinstance(arg, ctypes._Pointer):
        return arg.contents
    if isinstance(arg, ctypes._SimpleCData):
        return arg.value or 0
    return arg
