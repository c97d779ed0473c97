"""The part of CUDA that an engine needs, in one place to import from: devices, memory, streams and copies."""

from __future__ import annotations

from .copies import Block, copy
from .devices import Device, gpu, gpus, has_gpu, release_devices
from .library import driver
from .memory import Buffer, DeviceMemory, PinnedMemory, is_page_locked
from .out_of_memory import OutOfMemoryError
from .streams import Event, Graph, Stream

__all__ = [
    "Block",
    "Buffer",
    "Device",
    "DeviceMemory",
    "Event",
    "Graph",
    "OutOfMemoryError",
    "PinnedMemory",
    "Stream",
    "copy",
    "driver",
    "gpu",
    "gpus",
    "has_gpu",
    "is_page_locked",
    "release_devices",
]
