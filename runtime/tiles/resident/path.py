"""The ``FramePath`` of engines: the frame goes to the GPU once, and nothing but its cube comes back.

Legend: a frame is (H, W, 3) of the weights' camera; a cube is (31, H, W) float32; the context is (1, N) float32.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.gpu.cuda import is_page_locked
from ccnet.runtime.gpu.device_array import DeviceArray
from ccnet.runtime.gpu.exchange import device_of
from ccnet.runtime.gpu.out_of_memory import OutOfMemoryError
from ccnet.runtime.gpu.views import View, view_of
from ccnet.runtime.io.camera_frame import CameraFrame
from ccnet.runtime.io.frames import block_mean
from ccnet.runtime.tiles.context_encoder import EncodeMemory, check_context
from ccnet.runtime.tiles.frame_path import ONE_PASS, TWO_PASSES, Tiles
from ccnet.runtime.tiles.planner import FramePlan, TileRules, smaller
from ccnet.runtime.tiles.tiling import Span, check_tile

from . import budget
from .budget import GpuMemory
from .parallel_copy import ParallelCopy
from .pipeline import NotFiniteError, Pipeline
from .placement import PlacedTile, placed_tiles, sections

Array = npt.NDArray[np.float32]

Frame = CameraFrame | DeviceArray

_logger = logging.getLogger("ccnet.runtime.reconstructor")  # the documented name


class ResidentPath:
    """Decodes frames with a ``Pipeline``. Threads take turns, frame by frame.

    Attributes:
        encode_pixels: Maximum of pixels that ``encode`` reads.
        device: The GPU.
    """

    def __init__(self, selection: Selection, pipeline: Pipeline, rules: TileRules, *, encode_pixels: int) -> None:
        """Take over an open pipeline, and close it in ``close``.

        Args:
            selection: The engines that the pipeline runs.
            pipeline: Runs them.
            rules: The sizes that tiles may have.
            encode_pixels: Maximum of pixels that ``encode`` reads.

        Raises:
            CCNetError: An option does not fit the engines.
        """
        if encode_pixels < 1:
            raise CCNetError(f"encode_pixels is {encode_pixels}, expected at least 1")
        self.encode_pixels = encode_pixels
        self._manifest = manifest = selection.folder.manifest
        self._precision = selection.decode.precision
        self._memory = GpuMemory.of(selection)
        self._asked = self._rules = self._memory.rules(rules)
        self._planned: tuple[FramePlan, bool] | None = None
        check_tile(self.tile, manifest.halo, manifest.size_multiple)
        self._pipeline, self.device = pipeline, pipeline.device
        self._encode_memory = EncodeMemory()
        self._parallel = ParallelCopy()
        self._lock = threading.Lock()
        self._closed = False
        self._process = os.getpid()

    @property
    def tile(self) -> int:
        """Side of the largest square tile, px; it only shrinks."""
        return self._rules.largest

    def describe(self) -> Mapping[str, str]:
        """Return ``backend``, ``passes``, ``tile``, ``halo`` and ``memory`` in words."""
        return {
            "backend": f"{self._pipeline.name}, frames stay on the GPU",
            "passes": ONE_PASS if self._memory.full_limits else TWO_PASSES,
            **self._rules.describe(self._asked),
        }

    def keep(self, frame: object) -> DeviceArray | None:
        """Return a frame on the pipeline's GPU whose values are the engines' pixels; None for all other frames."""
        try:
            if isinstance(frame, np.ndarray) or device_of(frame) is not self._pipeline.device:
                return None
            with self._turn():
                array = self._pipeline.borrow_frame(frame)
        except (AttributeError, BufferError, KeyError, RuntimeError, TypeError, ValueError):
            return None  # it cannot be exported: the conversion on the host says why
        fits = array.ndim == 3 and array.shape[2] == 3 and 0 not in array.shape and min(array.strides) > 0
        return array if fits and array.dtype == self._pipeline.layout.dtype else None

    def plan(self, frame: Frame) -> FramePlan:
        """Return the tiles that a frame is decoded in; a CCNetError if none fits the memory budget."""
        return self._gpu_plan(frame).tiles

    def takes_one_pass(self, frame: Frame) -> bool:
        """Return whether ``full`` decodes a frame without a context of its own."""
        return self._gpu_plan(frame).full is not None

    def context(self, frame: Frame, context: Array | None) -> Array | None:
        """Return a context after a check; None stands for the frame's own, which never leaves the GPU."""
        return None if context is None else check_context(context, self._manifest)

    def encode(self, frame: Frame) -> Array:
        """Return the context (1, N) of a frame, from means of the smallest blocks that ``encode_pixels`` allows."""
        with self._turn():
            self._begin(frame)
            self._encode(frame)
            return check_context(self._pipeline.context(), self._manifest)

    def tiles(self, frame: Frame, context: Array | None, rows: tuple[int, int]) -> Tiles:
        """Decode some rows of the cube, a row of tiles at a time.

        Args:
            frame: The whole frame.
            context: Its context; None is the frame's own.
            rows: First row, and the row after the last.

        Yields:
            Rows and columns in the cube, and their values (31, h, W), valid until the next ones.
        """
        strips = self.strips(frame)
        if context is None and len(strips) > 1:  # all strips share one context
            context = self.encode(frame)
        buffer = np.empty((len(BANDS_NM), 0, frame.shape[1]), np.float32)
        for first, last in strips:
            first, last = max(first, rows[0]), min(last, rows[1])
            if first >= last:
                continue
            if buffer.shape[1] < last - first:
                buffer = np.empty((len(BANDS_NM), last - first, frame.shape[1]), np.float32)
            strip = buffer[:, : last - first]
            self.fill(frame, context, (first, last), strip)
            yield slice(first, last), slice(0, frame.shape[1]), strip

    def fill(
        self, frame: Frame, context: Array | None, rows: tuple[int, int], out: Any, *, strips: bool = False
    ) -> None:
        """Decode the rows of the cube from ``rows[0]`` to ``rows[1]``. When memory runs out, tiles shrink.

        Args:
            frame: The whole frame.
            context: Its context; None is the frame's own.
            rows: First row, and the row after the last.
            out: Array (31, rows[1] - rows[0], W) in host memory, or an array of any library in the memory of the GPU.
                The GPU writes into page-locked memory itself.
            strips: Without effect: the budget is the GPU's memory.
        """
        if isinstance(out, np.ndarray) and min(out.strides) > 0 and is_page_locked(self._pipeline.device, out):
            out = View.of(out)
        with self._turn():
            lent = None if isinstance(out, np.ndarray | View) else self._pipeline.borrow(out)  # keeps the memory alive
            if lent:
                out = _writable(lent, (len(BANDS_NM), rows[1] - rows[0], frame.shape[1]))
            if context is None and self._fill_whole(frame, rows, out):
                return
            self._set_context(frame, context)
            while True:
                try:
                    self._retry(lambda: self._fill(frame, rows, out))
                    return
                except OutOfMemoryError as error:
                    self._shrink(self.plan(frame), error)

    def strips(self, frame: Frame) -> list[tuple[int, int]]:
        """Return the strips to decode one after the other: first row, and the row after the last."""
        return [(y.first, y.last) for y in self.plan(frame).rows]

    def close(self) -> None:
        """Free everything, after the frame that another thread may be decoding; harmless when called twice.

        In a process that was forked after it was opened, nothing is done: CUDA does not work there.
        """
        if os.getpid() != self._process:
            return
        with self._lock, self._pipeline.device:
            self._closed = True
            self._pipeline.close()
            self._parallel.close()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if os.getpid() != self._process:  # CUDA's context, and maybe the owner of the lock, stayed in that process
            raise CCNetError("the reconstructor was opened before this process was forked: open the folder again here")
        with self._lock:
            if self._closed:
                raise CCNetError("the reconstructor is closed: open the folder again")
            with self._pipeline.frame():
                yield

    def _begin(self, frame: Frame, *, full: bool = False) -> FramePlan:
        """Forget the frame before, and its memory where other sizes or engines could exceed the budget.

        Args:
            frame: The frame to begin with.
            full: Whether ``full`` will run.

        Returns:
            The frame's plan.
        """
        found = self.plan(frame)
        self._pipeline.forget()
        if self._rules.memory is not None and (found, full) != self._planned:
            self._pipeline.free()
        self._planned = found, full
        return found

    def _gpu_plan(self, frame: Frame) -> budget.GpuPlan:
        height, width = frame.shape[:2]
        return self._memory.plan(height, width, self._rules, self._encode_memory.limit(self.encode_pixels))

    def _retry(self, work: Callable[[], None]) -> None:
        """Do work on the GPU; when memory runs out, free what earlier frames took and do it once more."""
        try:
            work()
        except OutOfMemoryError:
            self._pipeline.free()
            work()

    def _fill_whole(self, frame: Frame, rows: tuple[int, int], out: Array | View) -> bool:
        """Decode rows of a frame by ``full``, if it takes the frame and there is memory; return whether it did."""
        read = self._gpu_plan(frame).full
        if read is None:
            return False
        height, width = frame.shape[:2]
        y, x = Span(0, read.height, 0, height), Span(0, read.width, 0, width)
        self._begin(frame, full=True)

        def decode() -> None:
            self._pipeline.load(_source(frame), 0, (y.stop, x.stop), frame.dtype)
            self._decode([PlacedTile(y, x, slice(*rows))], rows[0], out, full=True)

        try:
            self._retry(decode)
        except OutOfMemoryError as error:
            self._pipeline.free()
            self._memory = replace(self._memory, full_limits=None)
            _logger.warning("%s; from now on all frames take two passes", error)
            return False
        return True

    def _set_context(self, frame: Frame, context: Array | None) -> None:
        """Begin with a frame: queue the upload of its context, or its ``encode``."""
        found = self._begin(frame)
        if context is None:
            self._encode(frame, (found.rows[-1].stop, found.columns[-1].stop))
        else:
            self._pipeline.set_context(context)

    def _fill(self, frame: Frame, rows: tuple[int, int], out: Array | View) -> None:
        found = self.plan(frame)
        ys, xs = found.rows, found.columns
        limit = budget.FRAME_BYTES // self._pipeline.layout.nbytes(1, xs[-1].stop)
        for tiles in sections(placed_tiles(ys, xs, rows), limit):
            first, last = tiles[0].y.start, tiles[-1].y.stop
            if not self._pipeline.holds(first, last):
                self._pipeline.load(_source(frame), first, (last - first, xs[-1].stop), frame.dtype)
            self._decode(tiles, rows[0], out)

    def _encode(self, frame: Frame, size: tuple[int, int] = (0, 0)) -> None:
        """Queue ``encode`` of a frame, from means of larger blocks when memory runs out.

        Args:
            frame: The whole frame.
            size: Height and width that the tiles will read, px.
        """

        def attempt(pixels: int) -> None:
            self._retry(lambda: self._queue_encode(frame, size, pixels))

        height, width = frame.shape[:2]
        self._encode_memory.encode((height, width), self.encode_pixels, attempt)

    def _queue_encode(self, frame: Frame, size: tuple[int, int], max_pixels: int) -> None:
        """Queue ``encode`` of a frame; its pixels are loaded to at least ``size`` px unless their means are enough."""
        side, height, width = self._memory.encode_input(frame.shape[0], frame.shape[1], max_pixels)
        if side > 1:
            self._pipeline.load_means(block_mean(_download(frame), side), (height, width), frame.dtype)
        else:
            self._pipeline.load(_source(frame), 0, (max(height, size[0]), max(width, size[1])), frame.dtype)
        self._pipeline.encode((height, width), means=side > 1)

    def _decode(self, tiles: Sequence[PlacedTile], first: int, out: Array | View, *, full: bool = False) -> None:
        try:
            if isinstance(out, View):
                self._pipeline.decode_into(tiles, out, first, full=full)
            else:

                def keep(tile: PlacedTile, values: Array) -> None:
                    self._parallel.copy(out[tile.target(first)], values)

                self._pipeline.decode(tiles, keep, full=full)
        except NotFiniteError as error:
            fp16 = self._precision == "fp16"
            cause = "FP16 overflowed, use precision fp32" if fp16 else "the weights are broken, export others"
            raise CCNetError(f"{error}: {cause}") from error

    def _shrink(self, failed: FramePlan, error: OutOfMemoryError) -> None:
        """Free what tiles need, and take smaller ones; raise the error if they are the smallest possible already."""
        self._pipeline.free()
        rules = smaller(self._rules, failed)
        if rules is None:
            raise error
        self._rules = rules
        _logger.warning("%s; from now on tiles are at most %d px", error, rules.largest)


def _writable(array: DeviceArray, shape: tuple[int, ...]) -> View:
    """Return the view of an array in GPU memory; a CCNetError unless it is float32 of this shape and writeable."""
    if array.shape != shape or array.dtype != np.float32 or array.read_only or min(array.strides) < 0:
        kind = f"{'read-only ' * array.read_only}{array.dtype} {array.shape}"
        raise CCNetError(f"out is {kind} on the GPU, expected a writeable float32 {shape}")
    return view_of(array)


def _source(frame: Frame) -> npt.NDArray[Any] | View:
    return view_of(frame) if isinstance(frame, DeviceArray) else frame


def _download(frame: npt.NDArray[Any] | DeviceArray) -> npt.NDArray[Any]:
    return frame.download() if isinstance(frame, DeviceArray) else frame
