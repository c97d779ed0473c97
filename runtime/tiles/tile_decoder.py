"""The cube of a frame, decoded tile by tile or by ``full`` in one pass. Tiles become smaller when memory runs out.

Legend: a frame is (H, W, 3) of the weights' camera; a part of a cube is (31, h, w) float32, bands ascending from 400 to
700 nm; the context is (1, N) float32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CONTEXT, CUBE, RGB, CCNetError, Manifest
from ccnet.runtime.backends.loading import LockedBackend
from ccnet.runtime.gpu.out_of_memory import OutOfMemoryError
from ccnet.runtime.io.camera_frame import CameraFrame
from ccnet.runtime.io.frames import rgb_tensor

from .frame_path import Tiles
from .memory import frame_memory, trim_heap
from .planner import FramePlan, TileRules, plan_frame, smaller
from .tiling import Span, check_tile, crop

Array = npt.NDArray[np.float32]

_logger = logging.getLogger("ccnet.runtime.reconstructor")  # the documented name


class TileDecoder:
    """Runs ``decode`` on the tiles of a frame, or ``full`` on a frame that is a single tile.

    Attributes:
        rules: The sizes that tiles may have. Tiles only shrink.
    """

    def __init__(
        self,
        backend: LockedBackend,
        manifest: Manifest,
        rules: TileRules,
        precision: str,
        full: LockedBackend | None = None,
        full_bytes: int = 0,
    ) -> None:
        """Check the rules; a CCNetError if no tile can be used.

        Args:
            backend: Runs ``decode``.
            manifest: Manifest of the graph or engine.
            rules: The sizes that tiles may have.
            precision: Precision of the graph or engine, for messages.
            full: Runs ``full``, for frames of any size. None: no frame is decoded in one pass.
            full_bytes: Memory of each pixel while ``full`` runs.
        """
        self._backend = backend
        self._full = full
        self._full_bytes = full_bytes
        self._manifest = manifest
        self._precision = precision
        self.rules = rules
        check_tile(rules.largest if rules.tile is None else rules.tile, manifest.halo, manifest.size_multiple)

    def plan(self, frame: CameraFrame, *, strips: bool = False) -> FramePlan:
        """Return the tiles of a frame; a CCNetError if they cannot fit the memory budget.

        Args:
            frame: The whole frame.
            strips: A strip of the cube is in memory, too, which collects a row of tiles.

        Returns:
            The plan.
        """
        rules = self.rules if strips else replace(self.rules, strip_bytes=0)
        return plan_frame(*frame.shape[:2], frame_memory(frame), rules)

    def takes_one_pass(self, frame: CameraFrame) -> bool:
        """Return whether the frame is a single tile for ``full``, which needs no context."""
        return self._full is not None and self.plan(frame).fits_whole(self.rules, self._full_bytes)

    def one_pass(self, frame: CameraFrame) -> Array | None:
        """Decode a whole frame by ``full``, under its own context. When memory runs out, tiles shrink.

        Args:
            frame: The whole frame.

        Returns:
            The cube (31, H, W), or None for a frame that is not a single tile, or no longer is one.
        """
        while self.takes_one_pass(frame):
            plan = self.plan(frame)
            try:
                return self._decode(frame, None, plan.rows[0], plan.columns[0])
            except OutOfMemoryError as error:
                self._shrink(plan, error)
        return None

    def tiles(self, frame: CameraFrame, context: Array, rows: tuple[int, int], *, strips: bool = False) -> Tiles:
        """Decode some rows of the cube, each pixel once. When memory runs out, the rest is decoded in smaller tiles.

        Args:
            frame: The whole frame.
            context: Its context.
            rows: First row, and the row after the last.
            strips: See ``plan``.

        Yields:
            Rows and columns in the cube, and their values (31, h, w). Drop them before the next are taken: the memory
            budget has no room for both.
        """
        missing = [(slice(*rows), slice(0, frame.shape[1]))]
        while missing:
            wanted_y, wanted_x = missing.pop()
            plan = self.plan(frame, strips=strips)
            try:
                for y, kept_y in _overlaps(plan.rows, wanted_y):
                    left = wanted_x.start
                    for x, kept_x in _overlaps(plan.columns, wanted_x):
                        if plan.tiles > 1:  # a single tile leaves its memory to the next frame
                            trim_heap()
                        # No name for the values: they would stay in memory while the next are computed
                        yield kept_y, kept_x, self._decode(frame, context, y, x)[:, _from(y, kept_y), _from(x, kept_x)]
                        left = kept_x.stop
            except OutOfMemoryError as error:
                self._shrink(plan, error)
                below, beside = slice(kept_y.stop, wanted_y.stop), slice(left, wanted_x.stop)
                missing += [(below, wanted_x), (kept_y, beside)]

    def _decode(self, frame: CameraFrame, context: Array | None, y: Span, x: Span) -> Array:
        """Return the part (31, h, w) of the cube that one tile keeps; ``full`` decodes it without a context."""
        feeds = {RGB: rgb_tensor(crop(frame, y, x), self._manifest.input, frame.dtype)}
        if context is not None:
            cube = self._backend.run({**feeds, CONTEXT: context}, CUBE)
        elif self._full is not None:
            cube = self._full.run(feeds, CUBE)
        else:
            raise ValueError("there is neither a context nor a graph full")
        expected = (1, len(BANDS_NM), y.stop - y.start, x.stop - x.start)
        if cube.shape != expected:
            raise CCNetError(f"{CUBE} is {cube.shape}, expected {expected}: export again")
        kept = cube[0, :, y.kept, x.kept]
        # A sum in float64 cannot overflow from finite values and needs no mask as large as the cube
        if not np.isfinite(kept.sum(dtype=np.float64)):
            fp16 = self._precision == "fp16"
            cause = "FP16 overflowed, use precision fp32" if fp16 else "the weights are broken, export others"
            raise CCNetError(f"the cube holds NaN or infinite values at rows {y.first} to {y.last}: {cause}")
        return kept

    def _shrink(self, failed: FramePlan, error: OutOfMemoryError) -> None:
        """Take smaller tiles and log it; raise the error if tiles are the smallest possible already."""
        rules = smaller(self.rules, failed)
        if rules is None:
            raise error
        self.rules = rules
        _logger.warning("%s; from now on tiles are at most %d px", error, rules.largest)


def _overlaps(spans: Iterable[Span], wanted: slice) -> Iterator[tuple[Span, slice]]:
    """Yield the spans that keep a part of an axis, and the part that each keeps."""
    for span in spans:
        kept = slice(max(span.first, wanted.start), min(span.last, wanted.stop))
        if kept.start < kept.stop:
            yield span, kept


def _from(span: Span, kept: slice) -> slice:
    """Return a slice of an axis relative to the kept part of a span."""
    return slice(kept.start - span.first, kept.stop - span.first)
