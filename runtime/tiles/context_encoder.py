"""The context of a whole frame, from the means of small blocks of pixels.

Legend: a frame is (H, W, 3) of the weights' camera; the context is (1, N) float32, everything that a tile must know of
the rest of its frame.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ccnet.contract import CONTEXT, RGB, CCNetError, Manifest, padded_size
from ccnet.runtime.backends.loading import LockedBackend, SizeLimits
from ccnet.runtime.gpu.out_of_memory import OutOfMemoryError
from ccnet.runtime.io.camera_frame import CameraFrame
from ccnet.runtime.io.frames import block_mean, rgb_tensor

from .tiling import Span, crop

Array = npt.NDArray[np.float32]
Result = TypeVar("Result")

REDUCED_PIXELS = 256 * 256
"""Maximum of blocks that a frame too large for ``encode`` is reduced to. They move the cube by a twentieth of the
network's own error (docs/contexts.md)."""

LEAST_PIXELS = 64 * 64
"""Blocks that ``encode`` reads at least when memory runs out: fewer move the cube too far (docs/contexts.md)."""

_logger = logging.getLogger("ccnet.runtime.reconstructor")  # the documented name


class EncodeMemory:
    """The number of pixels that ``encode`` has found memory for, which falls when memory runs out."""

    def __init__(self) -> None:
        self._most: int | None = None

    def limit(self, max_pixels: int) -> int:
        """Return the maximum of pixels to read, where ``max_pixels`` are asked for."""
        return max_pixels if self._most is None else min(max_pixels, self._most)

    def encode(self, size: tuple[int, int], max_pixels: int, attempt: Callable[[int], Result]) -> Result:
        """Encode a frame; while memory runs out, from means of larger blocks, with one warning in the end.

        Args:
            size: Height and width of the frame, px.
            max_pixels: Maximum of pixels that were asked for.
            attempt: Encodes the frame, from the means of at most this number of blocks.

        Returns:
            The result of ``attempt``.

        Raises:
            OutOfMemoryError: There is no memory for ``LEAST_PIXELS`` either.
        """
        pixels = most_blocks(*size, self.limit(max_pixels))
        failed: OutOfMemoryError | None = None
        while True:
            try:
                result = attempt(pixels)
                break
            except OutOfMemoryError as error:
                pixels = min(pixels, math.prod(size))
                if pixels <= LEAST_PIXELS:
                    raise
                failed, pixels = error, max(pixels // 2, LEAST_PIXELS)
        if failed is not None:
            self._most = pixels
            _logger.warning("%s; from now on encode reads means of at most %d blocks of a frame", failed, pixels)
        return result


class ContextEncoder:
    """Runs ``encode`` on a reduced frame, of fewer pixels after memory ran out."""

    def __init__(self, backend: LockedBackend, limits: SizeLimits, manifest: Manifest) -> None:
        self._backend = backend
        self._limits = limits
        self._manifest = manifest
        self._memory = EncodeMemory()

    def encode(self, frame: CameraFrame, max_pixels: int) -> Array:
        """Return the context (1, N) of a frame; of more than ``max_pixels`` pixels, from means, see ``block_side``."""
        height, width = frame.shape[:2]
        return self._memory.encode((height, width), max_pixels, lambda pixels: self._encode(frame, pixels))

    def _encode(self, frame: CameraFrame, max_pixels: int) -> Array:
        multiple, least = self._manifest.size_multiple, self._limits.least
        reduced = block_mean(frame, self._block_side(frame, max_pixels))
        y, x = (Span(0, max(padded_size(size, multiple), least), 0, size) for size in reduced.shape[:2])
        rgb = rgb_tensor(crop(reduced, y, x), self._manifest.input, frame.dtype)
        return self.check(self._backend.run({RGB: rgb}, CONTEXT))

    def reduces(self, frame: CameraFrame, max_pixels: int) -> bool:
        """Return whether ``encode`` would read means of blocks instead of the frame's own pixels."""
        return self._block_side(frame, self._memory.limit(max_pixels)) > 1

    def check(self, context: Array) -> Array:
        """Return the context if its dtype, shape and values are valid, see ``check_context``."""
        return check_context(context, self._manifest)

    def _block_side(self, frame: CameraFrame, max_pixels: int) -> int:
        height, width = frame.shape[:2]
        return block_side(height, width, max_pixels, self._limits.most)


def most_blocks(height: int, width: int, max_pixels: int) -> int:
    """Return the maximum of pixels or blocks to read of a frame, where a frame of ``max_pixels`` is not reduced."""
    return max_pixels if height * width <= max_pixels else min(max_pixels, REDUCED_PIXELS)


def block_side(height: int, width: int, max_pixels: int, longest: int) -> int:
    """Return the side, px, of the smallest square blocks whose means are few enough for ``encode``.

    Args:
        height: Height of the frame, px.
        width: Width of the frame, px.
        max_pixels: Maximum of pixels of a frame that is read as it is. A larger frame is reduced to at most that number
            of blocks, and at most ``REDUCED_PIXELS``.
        longest: Maximum number of blocks along one axis.

    Returns:
        The side of a block, at least 1 px.
    """
    max_pixels = most_blocks(height, width, max_pixels)
    side = max(1, math.isqrt(height * width // max_pixels), math.ceil(max(height, width) / longest))
    while math.ceil(height / side) * math.ceil(width / side) > max_pixels:
        side += 1
    return side


def check_context(context: Array, manifest: Manifest) -> Array:
    """Return a context if its dtype, shape and values are valid.

    Args:
        context: Context (1, N) float32.
        manifest: Manifest of the graphs that take it.

    Returns:
        The same context.

    Raises:
        CCNetError: The context has another dtype or shape, or is not finite.
    """
    expected = (1, manifest.context_size)
    if context.shape != expected or context.dtype != np.float32:
        raise CCNetError(f"{CONTEXT} is {context.dtype} {context.shape}, expected float32 {expected}")
    if not np.isfinite(context).all():
        raise CCNetError(f"{CONTEXT} holds NaN or infinite values: the weights are broken, export others")
    return context
