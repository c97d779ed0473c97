"""Layers: pictures and maps of numbers that the page draws of a cube, tile by tile.

Legend: a cube is (B, H, W); a tile of numbers is (h, w) float32.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, FRAME_SCALE, CCNetError
from ccnet.metrics import MRAE_OFFSET
from ccnet.metrics.reprojection import residual
from ccnet.runtime.viz.render import encode_srgb, reflectance_to_srgb, to_8_bit

from .palettes import PALETTES, colour_indices
from .scene import Array, Scene, ShownCube, tile_selection

Kind = Literal[
    "natural", "false", "frame", "band", "ratio", "index", "residual", "signed", "absolute", "mrae", "rmse", "angle"
]
"""Pictures: natural and false colour, the frame. Numbers of a cube: a band, a ratio a / b and a normalised difference
(a - b) / (a + b) of two bands, the reprojection residual. Numbers of two cubes: the difference of a band with its sign
or without, and over all bands MRAE, RMSE and the spectral angle in degrees.
"""

PICTURES = ("natural", "false", "frame")
COMPARISONS = ("signed", "absolute", "mrae", "rmse", "angle")

_BANDS_OF_KIND = {"false": 3, "band": 1, "ratio": 2, "index": 2, "signed": 1, "absolute": 1}
"""Number of bands that a layer is of."""

_DARK = 1e-6


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of a cube.

    Attributes:
        kind: Kind of picture or of numbers.
        cube: Index of the cube.
        other: Index of the cube that it is compared with, which counts as the truth.
        bands: Indices of bands, as many as the kind needs.
        gain: Factor of linear light, for pictures.
        low: Value of the first colour, for numbers.
        high: Value of the last colour.
        palette: Name of the colours.
    """

    kind: Kind
    cube: int = 0
    other: int = 0
    bands: tuple[int, ...] = ()
    gain: float = 1.0
    low: float = 0.0
    high: float = 1.0
    palette: str = "viridis"

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Layer:
        """Return the layer of a request's query; CCNetError if a value is not valid."""
        kind = query.get("kind", "natural")
        if kind not in get_args(Kind):
            raise CCNetError(f"kind is {kind[:20]!r}, expected one of {', '.join(get_args(Kind))}")
        palette = query.get("palette", "viridis")
        if palette not in PALETTES:
            raise CCNetError(f"palette is {palette[:20]!r}, expected one of {', '.join(PALETTES)}")
        if (gain := number("gain", query.get("gain", "1"))) <= 0:
            raise CCNetError(f"gain is {gain:g}, expected more than 0")
        bands = indices("bands", query.get("bands", ""))
        if len(bands) != (count := _BANDS_OF_KIND.get(kind, 0)):
            raise CCNetError(f"{len(bands)} bands, expected {count} for {kind}")
        return cls(
            kind=cast(Kind, kind),
            cube=_whole("cube", query.get("cube", "0")),
            other=_whole("other", query.get("other", "0")),
            bands=bands,
            gain=gain,
            low=number("low", query.get("low", "0")),
            high=number("high", query.get("high", "1")),
            palette=palette,
        )


def number(name: str, text: str) -> float:
    """Return a finite number of a query; CCNetError otherwise."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CCNetError(f"{name} is {text[:20]!r}, expected a number")
    return value


def whole(query: Mapping[str, str], name: str, least: int = 0, most: int = 1 << 30) -> int:
    """Return a whole number of a query; CCNetError if it is missing or outside the limits."""
    value = _whole(name, query.get(name, ""))
    if not least <= value <= most:
        raise CCNetError(f"{name} is {value}, expected {least} to {most}")
    return value


def indices(name: str, text: str) -> tuple[int, ...]:
    """Return the whole numbers of a query between commas; CCNetError if there is another text."""
    return tuple(_whole(name, part) for part in text.split(",") if part)


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise CCNetError(f"{name} is {text[:20]!r}, expected a whole number")
    return int(text)


def draw_tile(scene: Scene, layer: Layer, level: int, column: int, row: int) -> npt.NDArray[np.uint8]:
    """Draw a tile of a layer.

    Args:
        scene: The cubes.
        layer: The layer that the tile is drawn of.
        level: Level of the tile.
        column: Column of the tile among those of its level.
        row: Row of the tile.

    Returns:
        Of numbers, indices of the palette's colours (h, w), see ``colour_indices``; of pictures, sRGB (h, w, 3), or
        with alpha (h, w, 4) where values are missing.

    Raises:
        CCNetError: The cube does not have the layer or the tile.
    """
    if layer.kind not in PICTURES:
        return colour_indices(tile_numbers(scene, layer, level, column, row), layer.low, layer.high)
    shown = scene.cube(layer.cube)
    if layer.kind == "frame":
        return _frame_tile(shown, level, column, row, layer.gain)
    if layer.kind == "false":
        light = scene.tile(shown, layer.bands, level, column, row, picture=True)
    else:
        matrix = natural_colours(shown)
        if not matrix.any():
            raise CCNetError(f"{shown.name}: too few bands of visible light for natural colours; choose another layer")
        chosen = np.flatnonzero(matrix.any(axis=0))
        tile = scene.tile(shown, chosen.tolist(), level, column, row, picture=True)
        light = np.tensordot(matrix[:, chosen], tile, axes=1)
    finite = np.isfinite(light).all(axis=0)
    light = light.transpose(1, 2, 0) * np.float32(layer.gain)
    if finite.all():
        return encode_srgb(light)
    image = encode_srgb(np.nan_to_num(light, nan=0, posinf=0, neginf=0))
    return np.dstack([image, np.where(finite, 255, 0).astype(np.uint8)])


def natural_colours(shown: ShownCube) -> npt.NDArray[np.float32]:
    """Return the matrix (3, B) from a cube to linear sRGB in daylight; zeros if its bands are not of visible light."""
    nm, full = shown.cube.wavelengths, reflectance_to_srgb()
    if nm.shape == (len(BANDS_NM),) and np.allclose(nm, BANDS_NM):
        return full
    matrix = np.stack([np.interp(nm, BANDS_NM, weights, left=0, right=0) for weights in full])
    sums = matrix.sum(axis=1, keepdims=True)
    enough = np.count_nonzero((nm >= BANDS_NM[0]) & (nm <= BANDS_NM[-1])) >= 3 and (sums > 0.05).all()
    return np.asarray(matrix / sums if enough else np.zeros_like(matrix), np.float32)


def tile_numbers(scene: Scene, layer: Layer, level: int, column: int, row: int) -> Array:
    """Return the numbers (h, w) of a tile; NaN where they are not defined."""
    with np.errstate(all="ignore"):
        if layer.kind in COMPARISONS:
            return _compare_tile(scene, layer, level, column, row)
        shown = scene.cube(layer.cube)
        if layer.kind == "residual":
            return _residual_tile(scene, shown, level, column, row)
        tile = scene.tile(shown, layer.bands, level, column, row)
        if layer.kind == "band":
            return tile[0]
        a, b = tile
        if layer.kind == "ratio":
            return np.where(np.abs(b) > _DARK, a / b, np.float32(np.nan))
        return np.where(np.abs(a + b) > _DARK, (a - b) / (a + b), np.float32(np.nan))


def comparable(shown: ShownCube, other: ShownCube) -> bool:
    """Return whether two cubes have the same size and the same bands."""
    return shown.cube.shape == other.cube.shape and bool(np.allclose(shown.cube.wavelengths, other.cube.wavelengths))


def comparison(scene: Scene, index: int, other: int) -> tuple[ShownCube, ShownCube]:
    """Return a cube and the one that it is compared with; CCNetError if they differ in size or bands."""
    shown, truth = scene.cube(index), scene.cube(other)
    if not comparable(shown, truth):
        raise CCNetError(f"{shown.name} and {truth.name} differ in size or bands, expected the same to compare them")
    return shown, truth


def comparable_cubes(cubes: Sequence[ShownCube]) -> list[list[int]]:
    """Return for each cube the indices of the others that it can be compared with."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for at, shown in enumerate(cubes):
        alike.setdefault((shown.cube.shape, shown.cube.wavelengths.tobytes()), []).append(at)
    found: list[list[int]] = [[] for _ in cubes]
    for group in alike.values():  # the groups are few: all pairs of hundreds of cubes would take seconds
        others = [each for each in alike.values() if comparable(cubes[group[0]], cubes[each[0]])]
        together = sorted(itertools.chain.from_iterable(others))
        for at in group:
            found[at] = [other for other in together if other != at]
    return found


def spectral_angle(a: Array, b: Array) -> Array:
    """Return the map (h, w) of the spectral angle, degrees, of two tiles (B, h, w); NaN where one of them is dark."""
    norms = np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0)
    lit = np.minimum(*norms) > _DARK
    unit_a, unit_b = (tile / np.where(lit, norm, 1) for tile, norm in zip((a, b), norms, strict=True))
    # The half-angle form is exact for tiny angles, unlike the arccos of a rounded cosine
    half_angle = np.arctan2(np.linalg.norm(unit_a - unit_b, axis=0), np.linalg.norm(unit_a + unit_b, axis=0))
    return np.where(lit, 2 * np.degrees(half_angle), np.float32(np.nan)).astype(np.float32)


def _compare_tile(scene: Scene, layer: Layer, level: int, column: int, row: int) -> Array:
    shown, truth = comparison(scene, layer.cube, layer.other)
    bands = layer.bands or tuple(range(shown.cube.shape[0]))
    a, b = (scene.tile(each, bands, level, column, row) for each in (shown, truth))
    if layer.kind == "signed":
        return a[0] - b[0]
    if layer.kind == "absolute":
        return np.abs(a[0] - b[0])
    if layer.kind == "mrae":
        return np.mean(np.abs(a - b) / (np.abs(b) + np.float32(MRAE_OFFSET)), axis=0)
    if layer.kind == "rmse":
        return np.sqrt(np.mean((a - b) ** 2, axis=0))
    return spectral_angle(a, b)


def _frame_tile(shown: ShownCube, level: int, column: int, row: int, gain: float) -> npt.NDArray[np.uint8]:
    if shown.frame is None:
        raise CCNetError(f"{shown.name}: its frame is not open, expected --frame; name it")
    rows, columns = tile_selection(shown, level, column, row)
    image = to_8_bit(shown.frame.picture[rows.as_slice(), columns.as_slice()])
    return image if gain == 1 else np.clip(image * np.float32(gain ** (1 / 2.2)), 0, 255).astype(np.uint8)


def _residual_tile(scene: Scene, shown: ShownCube, level: int, column: int, row: int) -> Array:
    frame = shown.frame
    if frame is None or frame.linear is None or frame.response is None:
        raise CCNetError(f"{shown.name}: its frame or camera is unknown, expected --frame and artifacts that name both")
    rows, columns = tile_selection(shown, level, column, row)
    pixels = frame.linear[rows.as_slice(), columns.as_slice()]
    scaled = pixels.transpose(2, 0, 1) / np.float32(FRAME_SCALE[pixels.dtype.name])
    return residual(scaled, scene.tile(shown, range(shown.cube.shape[0]), level, column, row), frame.response)
