"""Which windows a frame is seen through, and what each of them keeps; pixels along one axis at a time.

A window sees ``halo`` px more than it keeps on every side, but for the frame's own edges, so that what it keeps is what
the whole frame would give. Starts and sides lie on the network's grid of ``multiple`` px.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccnet.contract import HALO, SIZE_MULTIPLE, CCNetError, padded_size, reflect_index

BYTES_PER_PIXEL = 3500
"""Of a window, while the paper's network decodes it: what ONNX Runtime took at 256, 512 and 768 px in either precision,
beyond the graph itself. TensorRT's engines were not measured.
"""


class Span(NamedTuple):
    """One axis of a window: it sees ``start`` to ``stop``, maybe beyond the frame, and keeps ``first`` to ``last``."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def kept(self) -> slice:
        """The part that is kept, counted from the window's start."""
        return slice(self.first - self.start, self.last - self.start)


def plan(size: int, window: int, halo: int = HALO, *, multiple: int = SIZE_MULTIPLE, least: int = 0) -> list[Span]:
    """Spans of equal length that keep disjoint parts, in order, and with them all of [0, size).

    window: most that a span may see; of the lengths that need as few spans, the smallest is taken.
    least: least that a span must see, for engines with bounded shapes; a smaller frame is padded to it.

    CCNetError if the window is not on the grid or leaves nothing within its halos.
    """
    check_tile(window, halo, multiple)
    if size < 1 or least > window:
        raise ValueError(f"size is {size}, least {least}, expected size > 0 and least <= window {window}")
    extent = max(padded_size(size, multiple), least)
    if extent <= window:
        return [Span(0, extent, 0, size)]
    count = math.ceil((extent - 2 * halo) / (window - 2 * halo))
    length = max(padded_size(math.ceil((extent - 2 * halo) / count) + 2 * halo, multiple), least)
    step = length - 2 * halo
    starts = [min(index * step, extent - length) for index in range(count)]
    edges = [0, *(start + length - halo for start in starts[:-1]), size]
    return [Span(start, start + length, *kept) for start, kept in zip(starts, pairwise(edges), strict=True)]


def tile_within(memory: int, halo: int = HALO, multiple: int = SIZE_MULTIPLE) -> int:
    """Side (px) of the largest window whose decoding takes at most ``memory`` bytes; CCNetError if none does."""
    side = math.isqrt(memory // BYTES_PER_PIXEL) // multiple * multiple if memory > 0 else 0
    least = 2 * halo + multiple
    if side < least:
        need = math.ceil(least**2 * BYTES_PER_PIXEL / 1e6)
        raise CCNetError(f"memory is {memory / 1e6:.0f} MB, expected at least {need} MB, for a window of {least} px")
    return side


def check_tile(window: int, halo: int, multiple: int) -> None:
    """CCNetError unless the window lies on the grid and is larger than its halos."""
    if window % multiple or window <= 2 * halo:
        raise CCNetError(
            f"window is {window} px, expected a multiple of {multiple} of at least {2 * halo + multiple} px"
            f" (the halo takes {halo} px of each side)"
        )


def crop(frame_HWC: npt.NDArray[Any], y: Span, x: Span) -> npt.NDArray[Any]:
    """What a window sees of a frame, mirrored where it goes past the right or bottom edge; a view where it does not."""
    height, width = frame_HWC.shape[:2]
    if y.stop <= height and x.stop <= width:
        return frame_HWC[y.start : y.stop, x.start : x.stop]
    return frame_HWC[np.ix_(reflect_index(height, y.start, y.stop), reflect_index(width, x.start, x.stop))]
