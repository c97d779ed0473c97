"""Round trips of the driver and copies between host and GPU: what the resident pipeline is built on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

import numpy as np

from ccnet.runtime.gpu.cuda import Block, Device, DeviceMemory, PinnedMemory, Stream, copy, has_gpu

from .rig import Rig, Row, SkippedError

_BANDS = 31


def run(rig: Rig) -> None:
    """Measure an empty round trip, and copies of a frame, a cube and a tile of a cube.

    Args:
        rig: The device.

    Raises:
        SkippedError: There is no CUDA driver with a GPU.
    """
    if not has_gpu():
        raise SkippedError("no CUDA driver with a GPU")
    side, tile = rig.size((1080, 1920), (32, 48)), rig.size(512, 16)
    device = Device()
    with ExitStack() as stack:
        stack.enter_context(device)
        stream = Stream(device)
        stack.callback(stream.close)
        empty = _microseconds(stream, lambda: None)
        rig.emit(Row(name="empty round trip to the driver", value=empty, unit="µs"))
        cube, frame = 4 * _BANDS * side[0] * side[1], 3 * side[0] * side[1]
        memory = DeviceMemory(device, cube)
        pinned = PinnedMemory(device, cube)
        for block in (memory, pinned):
            stack.callback(block.close)
        pageable = np.zeros(cube, np.uint8)
        for name, size in (("frame, uint8", frame), ("cube, float32", cube)):
            for kind, address in (("pinned", pinned.address), ("pageable", pageable.ctypes.data)):
                host, gpu = Block("host", address, size), Block("device", memory.address, size)
                _emit(rig, stream, f"{kind} {name}, up", size, gpu, host)
                _emit(rig, stream, f"{kind} {name}, down", size, host, gpu)
        _measure_boxes(rig, stream, memory, pinned, side, tile)


def _measure_boxes(
    rig: Rig, stream: Stream, memory: DeviceMemory, pinned: PinnedMemory, side: tuple[int, int], tile: int
) -> None:
    """Measure a tile of a frame (2-D) and of a cube (3-D), within the GPU and to page-locked memory."""
    height, width = side
    row, plane = 4 * width, 4 * width * height
    inside = Block("device", memory.address, 4 * tile, min(tile, height), _BANDS, row, plane)
    host = inside._replace(kind="host", address=pinned.address)
    packed = DeviceMemory(stream.device, 4 * tile * tile * _BANDS)
    try:
        whole = Block("device", packed.address, 4 * tile, inside.rows, _BANDS)
        size = 4 * tile * inside.rows * _BANDS
        _emit(rig, stream, "3-D, tile into a cube on the GPU", size, inside, whole)
        _emit(rig, stream, "3-D, tile into a cube in pinned memory", size, host, whole)
        flat, flat_inside = (block._replace(planes=1) for block in (whole, inside))
        _emit(rig, stream, "2-D, tile out of a plane on the GPU", size // _BANDS, flat, flat_inside)
    finally:
        packed.close()


def _emit(rig: Rig, stream: Stream, name: str, size: int, target: Block, source: Block) -> None:
    def measure() -> Row:
        time_us = _microseconds(stream, lambda: copy(stream, target, source))
        return Row(name=name, value=time_us, unit="µs", note=f"{size / 1e6:.1f} MB, {size / 1e3 / time_us:.1f} GB/s")

    rig.attempt(name, "µs", measure)


def _microseconds(stream: Stream, work: Callable[[], object], repeats: int = 20) -> float:
    """Return the median time of queueing work on an idle stream and waiting for it."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        stream.synchronize()
        times.append(1e6 * (time.perf_counter() - started))
    return median(times)
