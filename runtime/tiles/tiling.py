"""Plans of tiles along one axis of a frame, and the pixels of a tile; all positions are pixels.

A tile reads ``halo`` px more than it keeps on each side, except at the edges of the frame, so that the part that it
keeps equals the cube of the whole frame. Starts and lengths are multiples of ``multiple`` px, the network's grid.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ccnet.contract import HALO, SIZE_MULTIPLE, CCNetError, padded_size, reflect_index


class Span(NamedTuple):
    """One axis of a tile: it reads ``start`` to ``stop``, maybe beyond the frame, and keeps ``first`` to ``last``."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def kept(self) -> slice:
        """The part that is kept, relative to the start of the tile."""
        return slice(self.first - self.start, self.last - self.start)


def plan(size: int, tile: int, halo: int = HALO, *, multiple: int = SIZE_MULTIPLE, least: int = 0) -> list[Span]:
    """Plan spans of equal length whose kept parts are disjoint, in order, and cover [0, size).

    Args:
        size: Length of the axis, px.
        tile: Maximum length of a span, px. The spans are the shortest of which equally few are enough.
        halo: Border on each side that is read and not kept, px.
        multiple: Grid of starts and lengths, px.
        least: Minimum length of a span, px, for engines with limits; a smaller frame is padded to it.

    Returns:
        The spans.

    Raises:
        ValueError: There is nothing to cover, or ``least`` is longer than the tile. A CCNetError, which is a
            ValueError, says so if the tile is not on the grid or keeps nothing.
    """
    check_tile(tile, halo, multiple)
    if size < 1 or least > tile:
        raise ValueError(f"size is {size}, least {least}, expected size > 0 and least <= tile {tile}")
    extent = max(padded_size(size, multiple), least)
    if extent <= tile:
        return place(size, 1, extent, halo, multiple=multiple, least=least)
    count = math.ceil((extent - 2 * halo) / (tile - 2 * halo))
    length = max(padded_size(math.ceil((extent - 2 * halo) / count) + 2 * halo, multiple), least)
    return place(size, count, length, halo, multiple=multiple, least=least)


def place(
    size: int, count: int, length: int, halo: int = HALO, *, multiple: int = SIZE_MULTIPLE, least: int = 0
) -> list[Span]:
    """Place spans of equal length on one axis. Their kept parts are disjoint, in order, and cover [0, size).

    Args:
        size: Length of the axis, px.
        count: Number of spans. It must be the smallest that is enough for this length.
        length: Length of a span, px; a single span may reach beyond the axis.
        halo: Border on each side that is read and not kept, px.
        multiple: Grid of starts and lengths, px.
        least: Length that a smaller frame is padded to, px.

    Returns:
        The spans.
    """
    extent = max(padded_size(size, multiple), least)
    if count == 1:
        return [Span(0, extent, 0, size)]
    step = length - 2 * halo
    starts = [min(index * step, extent - length) for index in range(count)]
    edges = [0, *(start + length - halo for start in starts[:-1]), size]
    return [Span(start, start + length, *kept) for start, kept in zip(starts, pairwise(edges), strict=True)]


def check_tile(tile: int, halo: int, multiple: int) -> None:
    """Raise a CCNetError unless the tile is on the grid and larger than its halos; all are px."""
    if tile % multiple or tile <= 2 * halo:
        raise CCNetError(
            f"tile is {tile} px, expected a multiple of {multiple} of at least {2 * halo + multiple} px"
            f" (the halo takes {halo} px of each side)"
        )


def crop(frame_HWC: npt.NDArray[Any], y: Span, x: Span) -> npt.NDArray[Any]:
    """Return the pixels that a tile reads: a view inside the frame; mirrored beyond its right or bottom edge."""
    height, width = frame_HWC.shape[:2]
    if y.stop <= height and x.stop <= width:
        return frame_HWC[y.start : y.stop, x.start : x.stop]
    return frame_HWC[np.ix_(reflect_index(height, y.start, y.stop), reflect_index(width, x.start, x.stop))]
