"""The steps between a frame and its cube, as an interface: the host's (``host_path``) is one implementation.

Legend: a frame is (H, W, 3) of the weights' camera; a cube is (31, H, W) float32; the context is (1, N) float32,
everything that a tile must know of the rest of its frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ccnet.runtime.gpu.device_array import DeviceArray
from ccnet.runtime.gpu.devices import Device

from .planner import FramePlan

Array = npt.NDArray[np.float32]

PathFrame = Any
"""A CameraFrame; or what ``FramePath.keep`` returns, a ``DeviceArray``: both have a shape and a dtype."""

Tiles = Iterator[tuple[slice, slice, Array]]
"""Rows and columns in the cube, and their values (31, h, w)."""

ONE_PASS, TWO_PASSES = "1 (full) for a frame of one tile without a context, otherwise 2", "2"
"""Words of ``FramePath.describe`` for paths with and without ``full``."""


class FramePath(Protocol):
    """Computes contexts and cubes of frames, for a ``Reconstructor``, which checks and converts the frames.

    A context of None stands for the frame's own, computed when it is needed or never, in one pass.

    Attributes:
        encode_pixels: Maximum of pixels that ``encode`` reads.
    """

    encode_pixels: int

    @property
    def device(self) -> Device | None:
        """GPU whose memory ``fill`` can write as well; None if there is none."""

    @property
    def tile(self) -> int:
        """Side of the largest square tile, px; it only shrinks."""

    def describe(self) -> Mapping[str, str]:
        """Return ``backend``, ``passes``, ``tile``, ``halo`` and ``memory`` in words."""

    def keep(self, frame: object) -> DeviceArray | None:
        """Return a linear frame of the weights' camera that is where this path decodes; None for all other frames."""

    def plan(self, frame: PathFrame) -> FramePlan:
        """Return the tiles that a frame is decoded in; a CCNetError if none fits the memory budget."""

    def takes_one_pass(self, frame: PathFrame) -> bool:
        """Return whether ``full`` decodes a frame without a context of its own: a single tile that ``encode`` reads."""

    def context(self, frame: PathFrame, context: Array | None) -> Array | None:
        """Return the context to decode under, checked; None for a frame that needs one pass.

        Args:
            frame: The whole frame.
            context: Context (1, N) float32, or None for the frame's own.

        Returns:
            The context for all parts of this frame, or None.
        """

    def encode(self, frame: PathFrame) -> Array:
        """Return the context (1, N) of a frame."""

    def tiles(self, frame: PathFrame, context: Array | None, rows: tuple[int, int]) -> Tiles:
        """Return an iterator of parts of the cube that cover some rows of it, each pixel once.

        Parts come from top to bottom, and those of a row from left to right. Drop one before the next is taken: the
        memory budget has no room for both.

        Args:
            frame: The whole frame.
            context: The result of ``context``.
            rows: First row, and the row after the last.

        Returns:
            Rows and columns in the cube, and their values (31, h, w).
        """

    def fill(
        self, frame: PathFrame, context: Array | None, rows: tuple[int, int], out: Any, *, strips: bool = False
    ) -> None:
        """Decode some rows of the cube into an array.

        Args:
            frame: The whole frame.
            context: The result of ``context``.
            rows: First row, and the row after the last.
            out: Array (31, rows[1] - rows[0], W) float32.
            strips: ``out`` is a strip of ``strips`` and counts towards the memory budget.
        """

    def strips(self, frame: PathFrame) -> list[tuple[int, int]]:
        """Return the strips to decode one after the other: first row, and the row after the last."""

    def close(self) -> None:
        """Free everything, after the tile that another thread may be running; harmless when called twice."""
