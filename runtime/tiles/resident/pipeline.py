"""Two streams of a GPU that turn a frame into its cube.

``compute`` uploads the frame, runs ``encode``, cuts the tiles and runs ``decode`` on each; ``transfer`` copies the part
that a tile keeps into the caller's cube while the next tile runs. Two ``TileSlot`` take turns; a third runs ``full`` on
frames that are a single tile, in place of ``encode`` and ``decode``. Their order:

- A tile's part is copied when its ``decoded`` event has happened; a slot decodes again when its ``copied`` event has.
- The frame, the context and the pixels of a tile belong to ``compute`` alone, which does one thing after the other.
- The host waits for ``transfer`` once, at the end; ``transfer`` has then waited for all that ``compute`` did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ccnet.contract import CONTEXT, RGB, CCNetError, Manifest
from ccnet.runtime.gpu.cuda import Stream
from ccnet.runtime.gpu.device_array import DeviceArray
from ccnet.runtime.gpu.exchange import device_array
from ccnet.runtime.gpu.scratch import Scratch
from ccnet.runtime.gpu.views import View, copy_view

from .engine import PipelineEngine
from .frame_memory import FrameMemory
from .memory import GrowingMemory, TransferMemory
from .pixels import PixelLayout
from .placement import PlacedTile
from .replay import ReplayedContext
from .tile_slot import FLOAT, TileSlot

Array = npt.NDArray[np.float32]

Keep = Callable[[PlacedTile, Array], None]
"""Takes a tile and the part (31, h, w) of the cube that it keeps, valid during the call."""


class Closes(Protocol):
    """Something that holds memory until it is closed."""

    def close(self) -> None:
        """Free the memory."""


Owned = TypeVar("Owned", bound=Closes)


class NotFiniteError(CCNetError):
    """A tile's cube holds NaN or infinite values."""

    def __init__(self, tile: PlacedTile) -> None:
        super().__init__(f"the cube holds NaN or infinite values at rows {tile.rows.start} to {tile.rows.stop}")


class Pipeline:
    """Runs the engines of ``encode``, ``decode`` and ``full`` on one frame at a time, inside ``with pipeline.frame()``.

    Attributes:
        name: Library, version and device, for reports.
        device: The GPU.
        layout: Layout of the pixels that the engines read.
    """

    def __init__(
        self,
        engines: Mapping[str, PipelineEngine],
        manifest: Manifest,
        caches: Mapping[str, Path | None] = MappingProxyType({}),
    ) -> None:
        """Take over the engines, which are of one GPU, and close them in ``close``.

        Args:
            engines: ``encode`` (rgb → context) and ``decode`` (rgb, context → cube, cube_sum); maybe ``full`` (rgb →
                cube, cube_sum).
            manifest: Manifest of their folder.
            caches: Files of the kernels that TensorRT-RTX compiles for each of them.
        """
        decode = engines["decode"]
        self.device = device = decode.device
        self.name = decode.name
        self.layout = layout = PixelLayout(manifest.input)
        self._stack = stack = ExitStack()
        for engine in engines.values():
            stack.callback(engine.close)
        scratch = Scratch()

        def context(kind: str) -> ReplayedContext:
            run = engines[kind].execution_context(self._compute, scratch, caches.get(kind))
            return ReplayedContext(run, scratch, decode.can_be_captured)

        try:
            self._compute, self._transfer = (self._own(Stream(device)) for _ in range(2))
            self._frame, self._means = (self._own(FrameMemory(device, layout)) for _ in range(2))
            self._context, self._sums = (self._own(TransferMemory(device)) for _ in range(2))
            self._context.reserve(manifest.context_size * FLOAT.itemsize)
            self._context_shape = (1, manifest.context_size)
            self._encode = self._own(context("encode"))
            self._encode_rgb = self._own(GrowingMemory(device))
            frame_context = View.contiguous("device", self._context.address, self._context_shape, FLOAT)
            self._tile_slots = [self._own(TileSlot(device, context("decode"), layout, frame_context)) for _ in range(2)]
            self._frame_slots = [self._own(TileSlot(device, context("full"), layout))] if "full" in engines else []
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def frame(self) -> Iterator[None]:
        """Make the device current for the work on a frame.

        Yields:
            Nothing. An error is raised after all queued work is done, so that the caller may free the memory of it.
        """
        with self.device:
            try:
                yield
            except BaseException:
                self._synchronize()
                raise

    def borrow(self, array: Any) -> DeviceArray:
        """Return the memory of an array on the GPU, for ``decode_into``; its library's work on it is done before."""
        return device_array(array, self._transfer)

    def borrow_frame(self, array: Any) -> DeviceArray:
        """Return the memory of a frame on the GPU, for ``load``; its library's work on it is done before."""
        return device_array(array, self._compute)

    def forget(self) -> None:
        """Forget the rows of the last frame."""
        self._frame.forget()

    def holds(self, start: int, stop: int) -> bool:
        """Return whether these rows of the frame have been loaded since ``forget``."""
        return self._frame.holds(start, stop)

    def set_context(self, context: Array) -> None:
        """Queue the upload of a context (1, N)."""
        np.copyto(self._context.array(self._context_shape, FLOAT), context)
        self._context.upload(self._compute, context.nbytes)

    def encode(self, size: tuple[int, int], means: bool) -> None:
        """Queue ``encode``, whose context stays on the GPU for the tiles that follow.

        Args:
            size: Height and width of the first pixels that are read, px.
            means: Whether to read the means that were loaded, not the frame.
        """
        height, width = size
        self._encode_rgb.reserve(self.layout.nbytes(height, width))
        self._encode.set_shapes({RGB: self.layout.shape(height, width)})
        self._encode.set_addresses({RGB: self._encode_rgb.address, CONTEXT: self._context.address})
        source = self._means.pixels if means else self._frame.pixels
        pixels = self.layout.view(self._encode_rgb.address, height, width)
        copy_view(self._compute, pixels, source[:height, :width])
        self._encode.enqueue(self._compute)

    def context(self) -> Array:
        """Return the context that ``encode`` gives, when it is done."""
        array = self._context.array(self._context_shape, FLOAT)
        self._context.download(self._compute, array.nbytes)
        self._compute.synchronize()
        self._encode.keep_kernels()
        return array.copy()

    def load(self, frame: npt.NDArray[Any] | View, first: int, size: tuple[int, int], dtype: np.dtype[Any]) -> None:
        """Queue the upload of rows of a frame, see ``FrameMemory.load``; no tiles may be left to decode."""
        self._frame.load(frame, first, size, dtype, self._compute)

    def load_means(self, means: npt.NDArray[Any], size: tuple[int, int], dtype: np.dtype[Any]) -> None:
        """Queue the upload of the means of a frame's blocks, see ``FrameMemory.load``."""
        self._means.load(means, 0, size, dtype, self._compute)

    def decode_into(self, tiles: Sequence[PlacedTile], cube: View, first: int, *, full: bool = False) -> None:
        """Decode tiles straight into a cube that the GPU can write.

        Args:
            tiles: Tiles of equal size, of the rows that are loaded.
            cube: The cube (31, H, W), or rows of it, in GPU or page-locked memory.
            first: Row of the frame that the cube begins with.
            full: Whether the one tile is a whole frame for ``full``.

        Raises:
            NotFiniteError: A value is not finite.
            OutOfMemoryError: The GPU has too little memory for tiles of this size; nothing was decoded.
        """
        slots = self._slots(full)
        sums, totals = self._prepare(slots, tiles, staged=False)
        for index, tile in enumerate(tiles):
            slot = slots[index % len(slots)]
            self._decode(slot, tile)
            slot.copy_out(tile.kept, cube[tile.target(first)], sums[index : index + 1], self._transfer)
        self._transfer.synchronize()
        self._finish(tiles, totals)

    def decode(self, tiles: Sequence[PlacedTile], keep: Keep, *, full: bool = False) -> None:
        """Decode tiles, and hand the part that each keeps to the host while the next tile runs.

        Args:
            tiles: Tiles of equal size, of the rows that are loaded.
            keep: Takes the parts.
            full: Whether the one tile is a whole frame for ``full``.

        Raises:
            NotFiniteError: A value is not finite.
            OutOfMemoryError: The GPU or the host has too little memory for tiles of this size; nothing was decoded.
        """
        slots = self._slots(full)
        sums, totals = self._prepare(slots, tiles, staged=True)
        for index, tile in enumerate(tiles):
            slot = slots[index % len(slots)]
            if index >= len(slots):
                _hand_over(slot, tiles[index - len(slots)], keep)
            self._decode(slot, tile)
            slot.stage(tile.kept, sums[index : index + 1], self._transfer)
        for index, tile in list(enumerate(tiles))[-len(slots) :]:
            _hand_over(slots[index % len(slots)], tile, keep)
        self._finish(tiles, totals)

    def free(self) -> None:
        """Free what depends on the size of tiles and frames, so that smaller ones find memory."""
        self._synchronize()
        for block in (self._frame, self._means, self._encode_rgb, self._sums):
            block.close()
        self._encode.free()
        for slot in (*self._tile_slots, *self._frame_slots):
            slot.free()

    def close(self) -> None:
        """Free everything; harmless when called twice."""
        self._stack.close()

    def _own(self, block: Owned) -> Owned:
        self._stack.callback(block.close)
        return block

    def _slots(self, full: bool) -> list[TileSlot]:
        return self._frame_slots if full else self._tile_slots

    def _prepare(self, slots: Sequence[TileSlot], tiles: Sequence[PlacedTile], staged: bool) -> tuple[View, Array]:
        """Allocate what the tiles need; return the sums of their cubes, as the streams and as the host see them."""
        height, width = (span.stop - span.start for span in (tiles[0].y, tiles[0].x))
        for slot in slots[: len(tiles)]:
            slot.prepare(height, width, staged)
        self._sums.reserve(len(tiles) * FLOAT.itemsize)
        totals = self._sums.array((len(tiles),), FLOAT)
        return View.of(totals), totals

    def _decode(self, slot: TileSlot, tile: PlacedTile) -> None:
        rows = self._frame.rows(tile.y.start, tile.y.stop)
        slot.decode(self._frame.pixels[rows, tile.x.start : tile.x.stop], self._compute)

    def _finish(self, tiles: Sequence[PlacedTile], totals: Array) -> None:
        self._encode.keep_kernels()
        for slot in (*self._tile_slots, *self._frame_slots):
            slot.keep_kernels()
        for tile, is_finite in zip(tiles, np.isfinite(totals), strict=True):
            if not is_finite:
                raise NotFiniteError(tile)

    def _synchronize(self) -> None:
        for stream in (self._compute, self._transfer):
            stream.synchronize()


def _hand_over(slot: TileSlot, tile: PlacedTile, keep: Keep) -> None:
    keep(tile, slot.staged(tile.kept))
