"""The place of one tile on the GPU: its pixels, its part of the cube, and an execution context bound to both.

Two slots take turns, so that the cube of a tile is copied out while the next tile runs. Their contexts share a block of
scratch memory: they run one after the other on one stream, and scratch memory holds nothing between two runs.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CONTEXT, CUBE, CUBE_SUM, RGB
from ccnet.runtime.gpu.cuda import Device, DeviceMemory, Event, Stream
from ccnet.runtime.gpu.views import View, copy_view

from .memory import GrowingMemory, TransferMemory
from .pixels import PixelLayout
from .placement import Part
from .replay import ReplayedContext

Array = npt.NDArray[np.float32]

FLOAT = np.dtype(np.float32)


class TileSlot:
    """Runs ``decode`` or ``full`` on one tile after the other, on the streams of its pipeline."""

    def __init__(
        self, device: Device, context: ReplayedContext, layout: PixelLayout, frame_context: View | None = None
    ) -> None:
        """Allocate what does not depend on a tile's size.

        Args:
            device: The GPU.
            context: Execution context of ``decode`` or ``full``; ``close`` closes it.
            layout: Layout of the pixels.
            frame_context: The context (1, N) of the frame, in GPU memory; None for ``full``, which takes none.
        """
        self._context = context
        self._layout = layout
        self._frame_context = frame_context
        self._size = (0, 0)
        self._stack = ExitStack()
        self._stack.callback(context.close)
        self._rgb, self._cube = GrowingMemory(device), TransferMemory(device)
        self._decoded, self._copied = Event(device), Event(device)
        self._sum = DeviceMemory(device, FLOAT.itemsize)
        for block in (self._rgb, self._cube, self._decoded, self._copied, self._sum):
            self._stack.callback(block.close)

    def prepare(self, height: int, width: int, staged: bool) -> None:
        """Allocate memory for tiles of a size and bind the engine to it, unless that has been done.

        Args:
            height: Height of the tiles, px.
            width: Width of the tiles, px.
            staged: Whether the parts of the cube go through page-locked host memory.

        Raises:
            OutOfMemoryError: The GPU or the host has too little memory.
        """
        shape = self._layout.shape(height, width)
        self._rgb.reserve(self._layout.nbytes(height, width))
        self._cube.reserve(len(BANDS_NM) * height * width * FLOAT.itemsize, host=staged)
        self._size = (height, width)
        shapes = {RGB: shape}
        addresses = {RGB: self._rgb.address, CUBE: self._cube.address, CUBE_SUM: self._sum.address}
        if self._frame_context is not None:
            shapes[CONTEXT], addresses[CONTEXT] = self._frame_context.shape, self._frame_context.address
        self._context.set_shapes(shapes)
        self._context.set_addresses(addresses)

    def decode(self, pixels: View, stream: Stream) -> None:
        """Queue the decoding of a tile, for when the cube of the tile before has been copied out.

        Args:
            pixels: What the tile reads: a view (h, w, 3) in GPU memory.
            stream: Stream that runs the engine.
        """
        copy_view(stream, self._layout.view(self._rgb.address, *self._size), pixels)
        stream.wait(self._copied)
        self._context.enqueue(stream)
        self._decoded.record(stream)

    def copy_out(self, kept: Part, target: View, cube_sum: View, stream: Stream) -> None:
        """Queue the copy of the part that the tile keeps.

        Args:
            kept: The part, in the tile.
            target: Part (31, h, w) of the caller's cube, in GPU or page-locked memory.
            cube_sum: Where the sum of the tile's cube goes.
            stream: Stream that copies.
        """
        stream.wait(self._decoded)
        copy_view(stream, target, self._cube_view()[kept])
        self._copy_sum(cube_sum, stream)

    def stage(self, kept: Part, cube_sum: View, stream: Stream) -> None:
        """Queue the copy of the part that the tile keeps to page-locked memory, for ``staged``."""
        stream.wait(self._decoded)
        if not self._cube.is_shared:
            copy_view(stream, View.of(self._staged(kept)), self._cube_view()[kept])
        self._copy_sum(cube_sum, stream)

    def staged(self, kept: Part) -> Array:
        """Return the part (31, h, w) that ``stage`` copied, when it is there; valid until the next ``decode``."""
        self._copied.synchronize()
        return self._staged(kept)

    def keep_kernels(self) -> None:
        """Write the kernels that TensorRT-RTX compiled, if there are new ones."""
        self._context.keep_kernels()

    def free(self) -> None:
        """Free what depends on the size of the tiles; no work may be left."""
        for block in (self._rgb, self._cube):
            block.close()
        self._context.free()

    def close(self) -> None:
        """Free everything; no work may be left."""
        self._stack.close()

    def _staged(self, kept: Part) -> Array:
        if self._cube.is_shared:
            return self._cube.array((len(BANDS_NM), *self._size), FLOAT)[kept]
        height, width = (part.stop - part.start for part in kept[1:])
        return self._cube.array((len(BANDS_NM), height, width), FLOAT)

    def _cube_view(self) -> View:
        return View.contiguous("device", self._cube.address, (len(BANDS_NM), *self._size), FLOAT)

    def _copy_sum(self, target: View, stream: Stream) -> None:
        copy_view(stream, target, View.contiguous("device", self._sum.address, (1,), FLOAT))
        self._copied.record(stream)
