"""The cube of a frame, decoded tile by tile. Tiles become smaller when memory runs out.

Legend: a frame is (H, W, 3) of the weights' camera; a part of a cube is (31, h, w) float32, bands ascending from 400 to
700 nm; the context is (1, N) float32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CONTEXT, CUBE, RGB, CCNetError, Manifest, padded_size
from ccnet.runtime.backends.loading import LockedBackend, SizeLimits
from ccnet.runtime.backends.out_of_memory import OutOfMemoryError
from ccnet.runtime.io.camera_frame import CameraFrame
from ccnet.runtime.io.frames import rgb_tensor

from .tiling import Span, check_tile, crop, plan

Array = npt.NDArray[np.float32]

_logger = logging.getLogger("ccnet.runtime.reconstructor")  # the documented name


class TileDecoder:
    """Runs ``decode`` on the tiles of a frame.

    Attributes:
        tile: Longest side of a tile, px. It only shrinks.
    """

    def __init__(
        self, backend: LockedBackend, limits: SizeLimits, manifest: Manifest, tile: int, precision: str
    ) -> None:
        """Limit the tile to the sizes that the graph or engine accepts; a CCNetError if none of them can be used.

        Args:
            backend: Runs ``decode``.
            limits: Sides that the backend accepts, px.
            manifest: Manifest of the graph or engine.
            tile: Longest side that was asked for, px.
            precision: Precision of the graph or engine, for messages.
        """
        self._backend = backend
        self._limits = limits
        self._manifest = manifest
        self._precision = precision
        self.tile = min(max(tile, limits.least), limits.most)
        check_tile(self.tile, manifest.halo, manifest.size_multiple)

    def plan(self, size: int) -> list[Span]:
        """Return the tiles that cover one axis of ``size`` px."""
        manifest = self._manifest
        return plan(size, self.tile, manifest.halo, multiple=manifest.size_multiple, least=self._limits.least)

    def fill(self, frame: CameraFrame, context: Array, rows: tuple[int, int], out: Array) -> None:
        """Decode the rows of the cube from ``rows[0]`` to ``rows[1]`` into ``out`` (31, rows[1] - rows[0], W)."""
        for y, x, values in self.tiles(frame, context, rows):
            out[:, y.start - rows[0] : y.stop - rows[0], x] = values

    def tiles(self, frame: CameraFrame, context: Array, rows: tuple[int, int]) -> Iterator[tuple[slice, slice, Array]]:
        """Decode some rows of the cube. When memory runs out, tiles shrink and some values come twice.

        Args:
            frame: The whole frame.
            context: Its context.
            rows: First row, and the row after the last.

        Yields:
            Rows and columns in the cube, and their values (31, h, w).
        """
        first, last = rows
        while first < last:
            try:
                for y in self.plan(frame.shape[0]):
                    kept = slice(max(y.first, first), min(y.last, last))
                    if kept.start >= kept.stop:
                        continue
                    for x in self.plan(frame.shape[1]):
                        values = self._decode(frame, context, y, x)
                        yield kept, slice(x.first, x.last), values[:, kept.start - y.first : kept.stop - y.first]
                    first = kept.stop
            except OutOfMemoryError as error:
                self._shrink(error)

    def _decode(self, frame: CameraFrame, context: Array, y: Span, x: Span) -> Array:
        """Return the part (31, h, w) of the cube that one tile keeps."""
        feeds = {RGB: rgb_tensor(crop(frame, y, x), self._manifest.input, frame.dtype), CONTEXT: context}
        cube = self._backend.run(feeds, CUBE)
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

    def _shrink(self, error: OutOfMemoryError) -> None:
        """Halve the tile and log it; raise the error if the tile is the smallest possible already."""
        multiple = self._manifest.size_multiple
        least = max(2 * self._manifest.halo + multiple, self._limits.least)
        if self.tile <= least:
            raise error
        self.tile = max(padded_size(self.tile // 2, multiple), least)
        _logger.warning("%s; from now on tiles are %d px", error, self.tile)
