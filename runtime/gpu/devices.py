"""GPUs: the list of them, and one context for each in the process."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import threading
from ctypes import c_int, c_size_t, c_void_p
from types import TracebackType
from typing import Any

from ccnet.contract import CCNetError

from . import library

_MULTIPROCESSORS, _INTEGRATED, _CAN_MAP_HOST_MEMORY = 16, 18, 19  # CU_DEVICE_ATTRIBUTE_*
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@functools.cache
def gpus() -> tuple[str, ...]:
    """Return the name of each GPU, such as ``Orin (sm_87, 16 SM)``; a CCNetError says why there is none.

    The number of multiprocessors tells an AGX Orin from an Orin Nano.

    Returns:
        Name, architecture and number of multiprocessors of each.

    Raises:
        CCNetError: There is no driver, or no GPU.
    """
    driver = library.driver()
    count = c_int()
    library.check(driver, "cuInit", driver.cuInit(0))
    library.check(driver, "cuDeviceGetCount", driver.cuDeviceGetCount(ctypes.byref(count)))
    if not count.value:
        raise CCNetError("the CUDA driver finds no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use onnxruntime")
    return tuple(_describe(driver, index) for index in range(count.value))


def has_gpu() -> bool:
    """Return whether there is a CUDA driver with at least one GPU."""
    try:
        return bool(gpus())
    except CCNetError:
        return False


def _describe(driver: Any, index: int) -> str:
    name = ctypes.create_string_buffer(128)
    device = c_int()
    library.check(driver, "cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), index))
    library.check(driver, "cuDeviceGetName", driver.cuDeviceGetName(name, len(name), device))
    major, minor, count = (_attribute(driver, key, device) for key in (_MAJOR, _MINOR, _MULTIPROCESSORS))
    return f"{name.value.decode(errors='replace')} (sm_{major}{minor}, {count} SM)"


def gpu(index: int = 0) -> str:
    """Return the name of a GPU as in ``gpus``; a CCNetError lists the GPUs if there is none of this index."""
    names = gpus()
    if not 0 <= index < len(names):
        raise CCNetError(f"device is {index}, expected 0 to {len(names) - 1}: {', '.join(names)}")
    return names[index]


def _attribute(driver: Any, key: int, device: c_int) -> int:
    value = c_int()
    library.check(driver, "cuDeviceGetAttribute", driver.cuDeviceGetAttribute(ctypes.byref(value), key, device))
    return value.value


class Device:
    """A GPU and its primary context, which TensorRT and torch use too; the context is current inside ``with``.

    ``Device(index)`` returns the same object each time. It retains the context once, until the process ends. Driver
    calls need a current context: ``with device:`` around all work on streams and memory, in each thread.

    Attributes:
        index: Number of the GPU.
        name: Name as in ``gpus``, such as ``Orin (sm_87, 16 SM)``.
        compute_capability: Major and minor number, such as (8, 7).
        multiprocessors: Number of streaming multiprocessors.
        is_integrated: Host and GPU share one memory, as on a Jetson.
        can_map_host_memory: Page-locked host memory can have an address on the GPU.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    is_integrated: bool
    can_map_host_memory: bool
    _driver: Any
    _device: c_int
    _context: c_void_p

    def __new__(cls, index: int = 0) -> Device:
        """Return the device of this index; a CCNetError lists the GPUs if there is none."""
        with _lock:
            if index not in _opened:
                device = super().__new__(cls)
                device._open(index)
                _opened[index] = device
            return _opened[index]

    def _open(self, index: int) -> None:
        self.index, self.name = index, gpu(index)
        self._driver, self._device, self._context = library.driver(), c_int(), c_void_p()
        self.call("cuDeviceGet", ctypes.byref(self._device), index)
        attribute = functools.partial(_attribute, self._driver, device=self._device)
        self.compute_capability = attribute(_MAJOR), attribute(_MINOR)
        self.multiprocessors = attribute(_MULTIPROCESSORS)
        self.is_integrated = bool(attribute(_INTEGRATED))
        self.can_map_host_memory = bool(attribute(_CAN_MAP_HOST_MEMORY))
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)

    def call(self, function: str, *args: Any) -> None:
        """Call a driver function; a CCNetError has CUDA's name of the error."""
        if status := getattr(self._driver, function)(*args):
            library.check(self._driver, function, status)

    def free_memory(self) -> int:
        """Return the GPU memory that is free now, in bytes."""
        free, total = c_size_t(), c_size_t()
        with self:
            self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def synchronize(self) -> None:
        """Wait until all work on the GPU that this process queued is done, in all streams."""
        with self:
            self.call("cuCtxSynchronize")

    def _release(self) -> None:
        self.call("cuDevicePrimaryCtxRelease_v2", self._device)

    def __enter__(self) -> Device:
        self.call("cuCtxPushCurrent_v2", self._context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call("cuCtxPopCurrent_v2", ctypes.byref(c_void_p()))


_opened: dict[int, Device] = {}
_lock = threading.Lock()


@atexit.register
def release_devices() -> None:
    """Release the contexts of all devices, at the end of the process; ``Device(index)`` would retain them again."""
    with _lock:
        devices = list(_opened.values())
        _opened.clear()
    for device in devices:
        with contextlib.suppress(CCNetError):  # the driver may have ended before
            device._release()
