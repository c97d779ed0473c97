"""Numbers about a whole layer or pair of cubes, from all pixels or, of large cubes, every n-th."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ccnet.contract import CCNetError
from ccnet.metrics import band_mrae
from ccnet.runtime.io.formats.mapped_cube import Selection

from .layers import PICTURES, Layer, comparison, spectral_angle, tile_numbers
from .scene import TILE_PX, Array, Scene, ShownCube

_RANGE_PX, _ERROR_PX = 1 << 18, 1 << 21
"""Most pixels that a range of values and the errors of two cubes are computed from."""

_CLIPPED_PERCENT, _CLIPPED_PERCENT_OF_RATIOS = 1, 5
"""Share of the values on either side that a range leaves out; ratios are huge where the denominator is dark."""


def value_range(scene: Scene, layer: Layer) -> dict[str, float]:
    """Return the range of a layer's values without their extremes; symmetrical about 0 where 0 is in its middle.

    Args:
        scene: The cubes.
        layer: A layer of numbers.

    Returns:
        ``low`` and ``high``.

    Raises:
        CCNetError: The layer is a picture.
    """
    if layer.kind in PICTURES:
        raise CCNetError(f"kind is {layer.kind}, expected a map of numbers")
    shown = scene.cube(layer.cube)
    level = _level(shown, _RANGE_PX)
    tiles = [tile_numbers(scene, layer, level, *at).ravel() for at in _tiles(shown, level)]
    values = np.concatenate(tiles)
    values = values[np.isfinite(values)]
    if not values.size:
        return {"low": 0.0, "high": 1.0}
    clipped = _CLIPPED_PERCENT_OF_RATIOS if layer.kind == "ratio" else _CLIPPED_PERCENT
    low, high = (float(value) for value in np.percentile(values, (clipped, 100 - clipped)))
    if layer.kind in ("signed", "index"):
        high = max(abs(low), abs(high))
        low = -high
    elif layer.kind != "ratio":
        low = min(low, 0.0) if low < 0.2 * high else low
    return {"low": low, "high": high if high > low else low + 1e-3}


def errors(scene: Scene, index: int, other: int) -> dict[str, Any]:
    """Return the errors of a cube against another, which counts as the truth.

    Args:
        scene: The cubes.
        index: Index of the cube.
        other: Index of the truth.

    Returns:
        MRAE, RMSE and PSNR in dB and mean spectral angle in degrees of the cube; MRAE and RMSE of each band; and the
        step between the pixels that were compared.

    Raises:
        CCNetError: The cubes differ in size or bands.
    """
    shown, truth = comparison(scene, index, other)
    level, bands = _level(shown, _ERROR_PX), range(shown.cube.shape[0])
    mrae, squares = np.zeros(len(bands)), np.zeros(len(bands))
    angles, lit, count = 0.0, 0, 0
    for at in _tiles(shown, level):
        a, b = (scene.tile(each, bands, level, *at) for each in (shown, truth))
        size = a[0].size
        mrae += size * band_mrae(b, a)
        squares += np.square(a - b, dtype=np.float64).sum(axis=(1, 2))
        angle = spectral_angle(a, b)
        angles, lit = angles + float(np.nansum(angle)), lit + int(np.isfinite(angle).sum())
        count += size
    mean_square = float(squares.mean() / count)
    return {
        "step": 1 << level,
        "mrae": float(mrae.mean() / count),
        "rmse": math.sqrt(mean_square),
        "psnr": -10 * math.log10(mean_square) if mean_square else math.inf,
        "angle": angles / lit if lit else 0.0,
        "bands": {"mrae": (mrae / count).tolist(), "rmse": np.sqrt(squares / count).tolist()},
    }


def spectrum(shown: ShownCube, x: int, y: int, radius: int, *, error: bool = False) -> Array | None:
    """Return the mean spectrum (B,) of the pixels around one, (2 · radius + 1)² of them inside the cube.

    Args:
        shown: The cube.
        x: Column of the pixel.
        y: Row of the pixel.
        radius: Distance of the farthest pixels along both axes.
        error: Return the mean half width of the 90 % intervals instead.

    Returns:
        The values; None where there are no half widths.

    Raises:
        CCNetError: The pixel is outside the cube.
    """
    cube = shown.error if error else shown.cube
    if cube is None:
        return None
    bands, height, width = cube.shape
    if not (0 <= x < width and 0 <= y < height):
        raise CCNetError(f"pixel ({x}, {y}): outside {shown.name}, which has {width}×{height} px")
    rows, columns = (
        Selection(max(0, at - radius), min(size, at + radius + 1)) for at, size in ((y, height), (x, width))
    )
    return np.asarray(cube.read(range(bands), rows, columns).mean(axis=(1, 2)), np.float32)


def _level(shown: ShownCube, most: int) -> int:
    _, height, width = shown.cube.shape
    levels = (level for level in range(shown.levels) if (height >> level) * (width >> level) <= most)
    return next(levels, shown.levels - 1)


def _tiles(shown: ShownCube, level: int) -> Iterator[tuple[int, int]]:
    """Yield column and row of each tile of a level."""
    _, height, width = shown.cube.shape
    side = TILE_PX << level
    return itertools.product(range(math.ceil(width / side)), range(math.ceil(height / side)))
