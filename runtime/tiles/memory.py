"""Memory of a tile's pixel by graph and engine, and the default budget of a reconstruction. All memory is bytes."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Callable, Mapping

import numpy as np

from ccnet.contract import NATIVE_FORMAT, Artifact, CCNetError, available_memory
from ccnet.runtime.backends.loading import SizeLimits
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.gpu.devices import Device
from ccnet.runtime.io.frames import Frame

from .planner import STRIP_BYTES, TileRules

BYTES_PER_PIXEL: Mapping[str, int] = {NATIVE_FORMAT: 850, "onnx": 3500, "tensorrt": 2000, "tensorrt_rtx": 2000}
"""Format of a file → memory of each pixel of a tile while ``decode`` runs, beyond the loaded file, at most.

With the paper's network. The first two are peaks of a process with ONNX Runtime on a CPU, at 256² to 1088×1920 px and
256² to 768² px; those of engines are the scratch memory that TensorRT-RTX states for ``decode`` in FP16, with the
pixel's input and cube. The entry of a file in the manifest may state its own number as ``bytes_per_pixel``: graphs with
compiled operators and engines of this version do.
"""

_FULL_RATIO = 1.15
"""Memory of a pixel of ``full``, which computes the context too, relative to that of ``decode``, where the file does
not state it; measured on a CPU."""

BASE_BYTES = 180_000_000
"""Memory of a process that has loaded its libraries and graphs for the CPU, and reads and writes files."""

CPU_SHARE, CPU_MOST = 0.5, 2_000_000_000
"""The default budget on a CPU: a share of the memory that is free when the files are opened, and its maximum."""

GPU_SHARE = 0.5
"""The default budget on a GPU, of the memory that is free there."""


def tile_rules(selection: Selection, tile: int | None, memory: int | None) -> TileRules:
    """Return the rules for the tiles of a selection.

    Args:
        selection: The backend and the files.
        tile: Side of all tiles, px, whatever memory they take; an engine's limits take precedence. None: the planner
            chooses the sides.
        memory: Budget, bytes; None is the default budget.

    Returns:
        The rules.

    Raises:
        CCNetError: The budget is not positive, or a side is given as well.
    """
    if memory is not None and memory <= 0:
        raise CCNetError(f"memory is {memory} bytes, expected a positive number")
    if memory is not None and tile is not None:
        raise CCNetError("tile and memory both decide the size of the tiles: give only one of them")
    manifest, decode = selection.folder.manifest, selection.decode
    limits = SizeLimits.of(decode, manifest.size_multiple)
    on_cpu = selection.backend == "onnxruntime"
    return TileRules(
        halo=manifest.halo,
        multiple=manifest.size_multiple,
        least=limits.least,
        most=limits.most,
        tile=None if tile is None else min(max(tile, limits.least), limits.most),
        wanted=tile,
        memory=_default_budget(selection) if tile is memory is None else memory,
        tile_bytes=tile_bytes(decode),
        base_bytes=BASE_BYTES if on_cpu else 0,
        strip_bytes=STRIP_BYTES if on_cpu else 0,
        is_soft=memory is None,
    )


def tile_bytes(artifact: Artifact) -> int:
    """Return the memory of each pixel of its input while a file runs, with input and output."""
    stated = artifact.details.get("bytes_per_pixel")
    return stated if isinstance(stated, int) and stated > 0 else BYTES_PER_PIXEL[artifact.format]


def full_bytes(selection: Selection) -> int:
    """Return the memory of each pixel while ``full`` runs; 0 if there is no such graph."""
    if selection.full is None:
        return 0
    if "bytes_per_pixel" in selection.full.details:
        return tile_bytes(selection.full)
    return math.ceil(_FULL_RATIO * tile_bytes(selection.decode))


def trim_heap() -> None:
    """Give the free blocks of the C library back to the system, so that tiles stay within their budget.

    glibc keeps free blocks of up to 32 MB, such as parts of a cube: a process took up to 95 MB more than with this. It
    costs a tile of 512 px 3 to 5 % of its time, since the system clears each page anew.
    """
    _malloc_trim()(0)


@functools.cache
def _malloc_trim() -> Callable[[int], object]:
    """Return glibc's function, or one that does nothing with another C library."""
    return getattr(ctypes.CDLL(None), "malloc_trim", int) if sys.platform == "linux" else int


def frame_memory(frame: Frame) -> int:
    """Return the memory of a frame (H, W, 3), and for float32 of the 8-bit picture that it may have been before."""
    return frame.nbytes + (frame.size if frame.dtype == np.float32 else 0)


def _default_budget(selection: Selection) -> int | None:
    """Return the default budget; None where nothing but an engine's limits counts, or free memory is unknown."""
    if selection.backend == "onnxruntime":
        free = available_memory()
        return CPU_MOST if free is None else min(int(free * CPU_SHARE), CPU_MOST)
    if not selection.backend.startswith("onnxruntime"):
        return None  # an engine's largest tile was chosen when it was built
    try:
        return int(Device(selection.device).free_memory() * GPU_SHARE)
    except CCNetError:
        return None
