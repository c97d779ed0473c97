"""Frames to cubes through the host's memory: ``encode`` and ``decode`` tile by tile, or ``full`` in one pass.

Legend: a frame is (H, W, 3) of the weights' camera; a cube is (31, H, W) float32; the context is (1, N) float32.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError
from ccnet.runtime.backends.base import Backend
from ccnet.runtime.backends.loading import LockedBackend, SizeLimits
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.io.camera_frame import CameraFrame

from .context_encoder import ContextEncoder
from .frame_path import ONE_PASS, TWO_PASSES, Tiles
from .memory import full_bytes, tile_rules
from .planner import FramePlan
from .tile_decoder import TileDecoder

Array = npt.NDArray[np.float32]

ENCODE_PIXELS = 512 * 512
"""Default maximum of pixels of a frame that ``encode`` reads as it is; a larger one is reduced, see ``block_side``."""


class HostPath:
    """The ``FramePath`` of all backends that take and return numpy arrays. Threads take turns, tile by tile.

    Attributes:
        encode_pixels: Maximum of pixels that ``encode`` reads.
        device: None, for tiles are put together on the host.
    """

    device = None

    def __init__(
        self,
        selection: Selection,
        encoder: Backend,
        decoder: Backend,
        full: Backend | None = None,
        *,
        tile: int | None = None,
        memory: int | None = None,
        encode_pixels: int = ENCODE_PIXELS,
    ) -> None:
        """Take over open backends, and close them in ``close``.

        Args:
            selection: The backend and the files that were loaded.
            encoder: Runs ``encode``.
            decoder: Runs ``decode``.
            full: Runs ``full``, on frames of one tile that ``encode`` would not reduce. None: two passes always.
            tile: Side of all tiles, px. None: the planner chooses the sides, see ``plan_frame``.
            memory: Budget, bytes. None is the default, see ``tile_rules``.
            encode_pixels: Maximum of pixels that ``encode`` reads.

        Raises:
            CCNetError: An option does not fit the manifest.
        """
        if encode_pixels < 1:
            raise CCNetError(f"encode_pixels is {encode_pixels}, expected at least 1")
        manifest, lock = selection.folder.manifest, threading.Lock()
        self.encode_pixels = encode_pixels
        self._asked = tile_rules(selection, tile, memory)
        self._has_full = full is not None
        self._backends = [LockedBackend(backend, lock) for backend in (encoder, decoder, full) if backend]
        limits = SizeLimits.of(selection.encode, manifest.size_multiple)
        self._encoder = ContextEncoder(self._backends[0], limits, manifest)
        self._decoder = TileDecoder(
            self._backends[1],
            manifest,
            self._asked,
            selection.decode.precision,
            self._backends[2] if full else None,
            full_bytes(selection),
        )

    @property
    def tile(self) -> int:
        """Side of the largest square tile, px: what was asked for, unless the engine or the memory limits it."""
        return self._decoder.rules.largest

    def describe(self) -> Mapping[str, str]:
        """Return ``backend``, ``passes``, ``tile``, ``halo`` and ``memory`` in words."""
        return {
            "backend": self._backends[1].name,
            "passes": ONE_PASS if self._has_full else TWO_PASSES,
            **self._decoder.rules.describe(self._asked),
        }

    def keep(self, frame: object) -> None:
        """Return None: all frames are converted on the host."""

    def plan(self, frame: CameraFrame) -> FramePlan:
        """Return the tiles that a frame is decoded in."""
        return self._decoder.plan(frame)

    def takes_one_pass(self, frame: CameraFrame) -> bool:
        """Return whether ``full`` decodes a frame without a context of its own."""
        return self._decoder.takes_one_pass(frame) and not self._encoder.reduces(frame, self.encode_pixels)

    def context(self, frame: CameraFrame, context: Array | None) -> Array | None:
        """Return the context to decode under, checked; None for a frame that needs one pass."""
        if context is not None:
            return self._encoder.check(context)
        return None if self.takes_one_pass(frame) else self.encode(frame)

    def encode(self, frame: CameraFrame) -> Array:
        """Return the context (1, N) of a frame, from means of the smallest blocks that ``encode_pixels`` allows."""
        return self._encoder.encode(frame, self.encode_pixels)

    def tiles(self, frame: CameraFrame, context: Array | None, rows: tuple[int, int], *, strips: bool = False) -> Tiles:
        """Decode some rows of the cube, see ``TileDecoder.tiles``; all rows at once where one pass is enough."""
        if context is None:
            if (cube := self._decoder.one_pass(frame)) is not None:
                yield slice(*rows), slice(0, frame.shape[1]), cube[:, slice(*rows)]
                return
            context = self.encode(frame)
        yield from self._decoder.tiles(frame, context, rows, strips=strips)

    def fill(
        self, frame: CameraFrame, context: Array | None, rows: tuple[int, int], out: Array, *, strips: bool = False
    ) -> None:
        """Decode the rows of the cube from ``rows[0]`` to ``rows[1]`` into ``out`` (31, rows[1] - rows[0], W)."""
        for y, x, values in self.tiles(frame, context, rows, strips=strips):
            out[:, y.start - rows[0] : y.stop - rows[0], x] = values
            del values  # frees its memory for the next tile

    def strips(self, frame: CameraFrame) -> list[tuple[int, int]]:
        """Return the strips to decode one after the other: first row, and the row after the last."""
        return [(y.first, y.last) for y in self._decoder.plan(frame, strips=True).rows]

    def close(self) -> None:
        """Free the backends, after the tile that another thread may be running; harmless when called twice."""
        with ExitStack() as stack:
            for backend in self._backends:
                stack.callback(backend.close)
