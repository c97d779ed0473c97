"""The cubes that the page shows, and their tiles: squares of pixels at full resolution or thinned.

Legend: a cube is (B, H, W); a tile at level z holds every 2^z-th pixel, (b, h, w) with h and w up to 256.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError
from ccnet.runtime.io.formats.mapped_cube import MappedCube, Selection

Array = npt.NDArray[np.float32]
Read = Callable[[Sequence[int], Selection, Selection], Array]

TILE_PX = 256

_CACHE_BYTES = 192 << 20

_serials = itertools.count()


@dataclass(frozen=True, kw_only=True)
class ShownFrame:
    """The frame that a cube was reconstructed from.

    Attributes:
        picture: (H, W, 3) as it is shown, of any frame dtype.
        linear: (H, W, 3) of the weights' camera, of any frame dtype; None where the camera is unknown.
        response: (31, 3) of that camera, or None.
    """

    picture: npt.NDArray[Any]
    linear: npt.NDArray[Any] | None = None
    response: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class ShownCube:
    """A cube on the page.

    Attributes:
        name: Name for people.
        cube: The open cube.
        frame: The frame that it was reconstructed from, if that is known.
        note: A remark for people, such as that the cube is thinned.
        error: Half widths of the cube's 90 % intervals, if they are known.
        serial: A number that no other cube of this process has.
    """

    name: str
    cube: MappedCube
    frame: ShownFrame | None = None
    note: str = ""
    error: MappedCube | None = None
    serial: int = field(default_factory=lambda: next(_serials))

    @property
    def levels(self) -> int:
        """Levels of tiles: at the last level one tile holds the cube."""
        return max(0, (max(self.cube.shape[1:]) - 1).bit_length() - (TILE_PX - 1).bit_length()) + 1

    def has_residual(self) -> bool:
        """Return whether the reprojection residual can be computed."""
        return self.frame is not None and self.frame.response is not None


class Scene:
    """The cubes of the page; a stream replaces its cube while the page is open.

    Attributes:
        live: True if cubes are replaced.
        status: One line for people on a live scene.
    """

    def __init__(self, cubes: Sequence[ShownCube], live: bool = False) -> None:
        self.live, self.status = live, ""
        self._cubes = list(cubes)
        self._tiles = _TileCache()

    @property
    def cubes(self) -> list[ShownCube]:
        """The cubes at this moment."""
        return list(self._cubes)

    def cube(self, index: int) -> ShownCube:
        """Return a cube by its index; CCNetError if there is none."""
        cubes = self._cubes
        if not 0 <= index < len(cubes):
            raise CCNetError(f"cube {index}: not on the page, expected 0 to {len(cubes) - 1}")
        return cubes[index]

    def show(self, cube: ShownCube, status: str = "") -> None:
        """Replace all cubes by a newer one."""
        self._cubes, self.status = [cube], status

    def tile(
        self, shown: ShownCube, bands: Sequence[int], level: int, column: int, row: int, *, picture: bool = False
    ) -> Array:
        """Read bands of a tile.

        Args:
            shown: The cube.
            bands: Indices of bands.
            level: Level of the tile.
            column: Column of the tile among those of its level.
            row: Row of the tile.
            picture: Take means of pixels where the file has them, instead of every n-th pixel.

        Returns:
            (b, h, w) float32.

        Raises:
            CCNetError: The cube has no such tile or band.
        """
        rows, columns = tile_selection(shown, level, column, row)
        count = shown.cube.shape[0]
        if not all(0 <= band < count for band in bands):
            raise CCNetError(f"bands {list(bands)[:8]}: not in this cube, expected 0 to {count - 1}")
        read = shown.cube.read_means if picture and level else None
        key = (shown.serial, int(read is not None), level, column, row)
        return self._tiles.read(read or shown.cube.read, key, list(bands), rows, columns)


def tile_selection(shown: ShownCube, level: int, column: int, row: int) -> tuple[Selection, Selection]:
    """Return the rows and columns of a tile; CCNetError if the cube has no such tile."""
    _, height, width = shown.cube.shape
    side = TILE_PX << max(0, min(level, shown.levels))
    if not (0 <= level < shown.levels and 0 <= column * side < width and 0 <= row * side < height):
        raise CCNetError(f"tile {level}/{column}/{row}: outside this cube, which has {shown.levels} levels")
    rows, columns = (
        Selection(at * side, min((at + 1) * side, size), 1 << level) for at, size in ((row, height), (column, width))
    )
    return rows, columns


class _TileCache:
    """The bands of tiles that were read last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, ...], Array] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, read: Read, key: tuple[int, ...], bands: list[int], rows: Selection, columns: Selection) -> Array:
        keys = {band: (*key, band) for band in bands}
        with self._lock:
            found = {band: self._kept[key] for band, key in keys.items() if key in self._kept}
            for band in found:
                self._kept.move_to_end(keys[band])
        if missing := [band for band in keys if band not in found]:
            found |= dict(zip(missing, read(missing, rows, columns), strict=True))
            self._keep({keys[band]: found[band] for band in missing})
        return np.stack([found[band] for band in bands])

    def _keep(self, planes: dict[tuple[int, ...], Array]) -> None:
        with self._lock:
            for key, plane in planes.items():
                if key not in self._kept:
                    self._kept[key] = plane.copy()  # a view would keep its whole array
                    self._bytes += plane.nbytes
            while self._bytes > _CACHE_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
