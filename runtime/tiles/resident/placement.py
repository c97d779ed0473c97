"""The source of a tile's pixels and the target of its part of the cube; all positions are pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ccnet.runtime.tiles.tiling import Span

Part = tuple[slice, slice, slice]
"""Bands, rows and columns of a cube."""


@dataclass(frozen=True)
class PlacedTile:
    """A tile of a frame, and the rows of it that are wanted.

    Attributes:
        y: Rows that it reads and keeps.
        x: Columns that it reads and keeps.
        rows: Rows of the frame that it gives: those that it keeps and that are wanted.
    """

    y: Span
    x: Span
    rows: slice

    @property
    def columns(self) -> slice:
        """Columns of the frame that the tile gives."""
        return slice(self.x.first, self.x.last)

    @property
    def kept(self) -> Part:
        """The part that the tile gives, in the tile."""
        return slice(None), slice(self.rows.start - self.y.start, self.rows.stop - self.y.start), self.x.kept

    def target(self, first: int) -> Part:
        """Return the place of that part in a cube that begins with row ``first`` of the frame."""
        return slice(None), slice(self.rows.start - first, self.rows.stop - first), self.columns


def placed_tiles(ys: Sequence[Span], xs: Sequence[Span], rows: tuple[int, int]) -> list[list[PlacedTile]]:
    """Return the tiles that give some rows of a cube: one list for each row of tiles, from top to bottom.

    Args:
        ys: Plan of the rows.
        xs: Plan of the columns.
        rows: First row that is wanted, and the row after the last.

    Returns:
        The tiles, from left to right.
    """
    kept = [(y, slice(max(y.first, rows[0]), min(y.last, rows[1]))) for y in ys]
    return [[PlacedTile(y, x, part) for x in xs] for y, part in kept if part.start < part.stop]


def sections(tile_rows: Sequence[list[PlacedTile]], limit: int) -> list[list[PlacedTile]]:
    """Join adjacent rows of tiles as long as the rows of the frame that they read are few enough.

    Args:
        tile_rows: Rows of tiles.
        limit: Maximum of rows of the frame to read for a section of more than one row of tiles.

    Returns:
        The tiles of each section.
    """
    found: list[list[PlacedTile]] = []
    for tiles in tile_rows:
        if found and tiles[0].y.stop - found[-1][0].y.start <= limit:
            found[-1].extend(tiles)
        else:
            found.append(list(tiles))
    return found
