"""The plan of a frame's tiles: height and width that compute the fewest pixels within a memory budget.

A tile reads a halo on each side that it does not keep, so few large tiles compute fewer pixels than many small ones.
Lengths are pixels, memory is bytes.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from ccnet.contract import BANDS_NM, CCNetError, padded_size

from .tiling import Span, place, plan

SOFT_SIDE = 512
"""Tiles of at most this side, px, are used beyond a soft budget too: smaller ones would compute far more pixels."""

STRIP_BYTES = 4 * len(BANDS_NM)
"""Memory of a pixel of the strip that collects the kept parts of tiles, float32."""


@dataclass(frozen=True, kw_only=True)
class TileRules:
    """The sizes that tiles may have, and what a pixel costs.

    Attributes:
        halo: Border of a tile that is read and not kept, px.
        multiple: Grid of starts and lengths, px.
        least: Minimum side of a tile, px; a smaller frame is padded to it.
        most: Maximum side of a tile, px.
        tile: Side of all tiles, px; None takes the sides that compute the fewest pixels.
        wanted: Side that was asked for, px, which may be beyond the limits; for messages.
        max_pixels: Maximum of pixels of a tile, or the smallest possible tile; None is no limit.
        memory: Budget, bytes; None is no limit.
        tile_bytes: Memory for each pixel of the tile that is computed.
        slot_bytes: Part of ``tile_bytes`` for the tile's pixels and cube, where two tiles at a time have their own of
            it and share the rest; 0 for one tile at a time.
        shared_bytes: Size of the rest that is taken at least, since ``encode`` needs it.
        base_bytes: Memory that is taken whatever the tiles are.
        strip_bytes: Memory for each pixel of the strip that collects tiles; 0 where there is none, or elsewhere.
        is_soft: Tiles up to ``SOFT_SIDE`` may exceed the budget; no frame is refused.
    """

    halo: int
    multiple: int
    least: int
    most: int
    tile: int | None = None
    wanted: int | None = None
    max_pixels: int | None = None
    memory: int | None = None
    tile_bytes: int = 0
    slot_bytes: int = 0
    shared_bytes: int = 0
    base_bytes: int = 0
    strip_bytes: int = STRIP_BYTES
    is_soft: bool = False

    @property
    def smallest(self) -> int:
        """Side of the smallest tile that has halos on both sides and is accepted, px."""
        return max(2 * self.halo + self.multiple, self.least)

    @property
    def largest(self) -> int:
        """Side of the largest square tile, px, whatever the frame."""
        if self.tile is not None:
            return self.tile
        pixels = [self.most**2, *([] if self.max_pixels is None else [self.max_pixels])]
        if self.memory is not None and self.tile_bytes:
            pixels.append(max(self.memory - self.base_bytes, 0) // (self.tile_bytes + self.slot_bytes))
        side = math.isqrt(min(pixels)) // self.multiple * self.multiple
        return max(side, self.smallest)

    def describe(self, asked: TileRules) -> dict[str, str]:
        """Return ``tile``, ``halo`` and ``memory`` in words; ``asked`` are the rules before memory ran out."""
        words = f"as large as memory and engine allow, {self.tile_bytes} bytes a pixel"
        if self.tile is not None:
            limit = "" if self.tile == asked.wanted else f" (by the engine or memory; {asked.wanted} px was asked for)"
            words = f"{self.tile} px{limit}"
        elif self != asked:
            words = f"at most {self.largest} px, as memory ran out"
        budget = "no limit" if self.memory is None else f"at most {self.memory / 1e6:.0f} MB"
        return {"tile": words, "halo": f"{self.halo} px", "memory": budget}


@dataclass(frozen=True)
class FramePlan:
    """The tiles of a frame: each pair of a span of rows and a span of columns is a tile.

    Attributes:
        rows: Spans of the vertical axis, top to bottom.
        columns: Spans of the horizontal axis, left to right.
        memory: Estimated memory while the frame is reconstructed part by part, bytes.
    """

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    memory: int

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of the tiles, px, the same for all tiles of a frame."""
        return self.rows[0].stop, self.columns[0].stop

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)

    @property
    def pixels(self) -> int:
        """Number of pixels that are computed."""
        height, width = self.tile
        return self.tiles * height * width

    @property
    def pixels_per_kept(self) -> float:
        """Number of pixels that are computed for each pixel of the frame, at least 1."""
        return self.pixels / (self.rows[-1].last * self.columns[-1].last)

    def fits_whole(self, rules: TileRules, tile_bytes: int) -> bool:
        """Return whether this is a single tile that fits the budget even if a pixel takes ``tile_bytes``."""
        height, width = self.tile
        extra = (tile_bytes - rules.tile_bytes) * height * width
        return self.tiles == 1 and (
            rules.tile is not None or rules.memory is None or self.memory + extra <= rules.memory
        )

    def describe(self) -> str:
        """Return number, size, cost and memory of the tiles in words."""
        height, width = self.tile
        return (
            f"{len(self.columns)}×{len(self.rows)} of {width}×{height} px, {self.pixels_per_kept:.2f} pixels computed"
            f" per pixel kept, about {self.memory / 1e6:.0f} MB"
        )


class _Axis(NamedTuple):
    """Spans of one axis of a frame that have not been placed yet."""

    spans: int
    """Number of spans."""
    length: int
    """Length of each span, px."""


class _Grid(NamedTuple):
    """Tiles of a frame that have not been placed yet."""

    rows: _Axis
    columns: _Axis


@functools.lru_cache(maxsize=64)
def plan_frame(height: int, width: int, frame_bytes: int, rules: TileRules) -> FramePlan:
    """Plan the tiles of a frame.

    Args:
        height: Height of the frame, px.
        width: Width of the frame, px.
        frame_bytes: Memory of the frame.
        rules: The sizes that tiles may have, and the budget.

    Returns:
        The plan that computes the fewest pixels within the budget; of equal plans, that with the least memory.

    Raises:
        CCNetError: No tile fits the budget.
    """
    axes = _axes(height, rules), _axes(width, rules)
    if rules.max_pixels is not None:
        rules = replace(rules, max_pixels=max(rules.max_pixels, _smallest_tile(*axes)))
    memory = functools.partial(_memory, height=height, width=width, frame_bytes=frame_bytes, rules=rules)
    grids = itertools.starmap(_Grid, itertools.product(*axes))
    best = min(grids, key=lambda grid: _rank(grid, memory(grid), rules))
    needed = memory(best)
    if not _fits(best, needed, rules) and not rules.is_soft:
        raise CCNetError(
            f"memory is {(rules.memory or 0) / 1e6:.0f} MB, a frame of {width}×{height} px needs at least"
            f" {math.ceil(needed / 1e6)} MB: allow more (--memory, in MB) or take a smaller frame"
        )
    rows, columns = (
        tuple(place(size, *axis, rules.halo, multiple=rules.multiple, least=rules.least))
        for size, axis in ((height, best.rows), (width, best.columns))
    )
    return FramePlan(rows, columns, needed)


def smaller(rules: TileRules, failed: FramePlan) -> TileRules | None:
    """Return rules for tiles of half the size, after memory ran out; None where tiles cannot be smaller.

    Args:
        rules: The rules so far.
        failed: The plan whose tiles were too large.

    Returns:
        Rules with half the side, or for sides that are chosen with half the pixels.
    """
    if rules.tile is not None:
        if rules.tile <= rules.smallest:
            return None
        return replace(rules, tile=max(padded_size(rules.tile // 2, rules.multiple), rules.smallest))
    height, width = failed.tile
    axes = (_axes(spans[-1].last, rules) for spans in (failed.rows, failed.columns))
    if height * width <= _smallest_tile(*axes):
        return None
    return replace(rules, max_pixels=min(height * width, rules.max_pixels or height * width) // 2)


def _axes(size: int, rules: TileRules) -> list[_Axis]:
    """Return every useful number of spans for an axis of ``size`` px, each with the shortest length that is enough."""
    if rules.tile is not None:
        spans = plan(size, rules.tile, rules.halo, multiple=rules.multiple, least=rules.least)
        return [_Axis(len(spans), spans[0].stop)]
    extent = max(padded_size(size, rules.multiple), rules.least)
    found = {1: extent} if extent <= rules.most else {}
    inner = extent - 2 * rules.halo
    for length in range(rules.smallest, min(rules.most, extent - rules.multiple) + 1, rules.multiple):
        found.setdefault(math.ceil(inner / (length - 2 * rules.halo)), length)
    return [_Axis(count, length) for count, length in found.items()]


def _smallest_tile(rows: list[_Axis], columns: list[_Axis]) -> int:
    """Return the number of pixels of the smallest tile that a frame can be cut into."""
    return math.prod(min(axis.length for axis in axes) for axes in (rows, columns))


def _rank(grid: _Grid, memory: int, rules: TileRules) -> tuple[bool, int, int]:
    """Return the key by which the best grid is the least: it fits, computes few pixels and takes little memory."""
    pixels = math.prod(axis.spans * axis.length for axis in grid)
    return (False, pixels, memory) if _fits(grid, memory, rules) else (True, memory, pixels)


def _fits(grid: _Grid, memory: int, rules: TileRules) -> bool:
    if rules.max_pixels is not None and grid.rows.length * grid.columns.length > rules.max_pixels:
        return False
    is_modest = max(grid.rows.length, grid.columns.length) <= SOFT_SIDE
    return rules.memory is None or memory <= rules.memory or (rules.is_soft and is_modest)


def _memory(grid: _Grid, height: int, width: int, frame_bytes: int, rules: TileRules) -> int:
    """Return the memory of frame, tiles, and a strip of kept parts, which a single tile does not need."""
    rows, columns = grid
    pixels, slots = rows.length * columns.length, min(rows.spans * columns.spans, 2)
    tiles = max((rules.tile_bytes - rules.slot_bytes) * pixels, rules.shared_bytes) + slots * rules.slot_bytes * pixels
    tallest = height if rows.spans == 1 else rows.length - rules.halo
    strip = 0 if rows.spans == columns.spans == 1 else rules.strip_bytes * tallest * width
    return rules.base_bytes + frame_bytes + tiles + strip
