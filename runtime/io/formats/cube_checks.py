"""Facts that all formats of cubes share: checks before the values are read, whose errors name the file, and units."""

from __future__ import annotations

import math
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError

BAND_COUNT = len(BANDS_NM)

FWHM_NM = 10.0
"""Width of a band at half of its maximum, nm, as in the data sets that the bands are from."""

EXPECTED_CUBE = f"a cube of {BAND_COUNT} bands, {BANDS_NM[0]}-{BANDS_NM[-1]} nm"

SOURCE_KEY = "ccnet source"
"""Name of the metadata that says which source a cube's frame is from; with ``_`` in GeoTIFF and NetCDF."""

CONTENT_KEY = "ccnet content"
"""Name of the metadata that says what the values are, for a cube that holds no reflectance."""

_WAVELENGTH_TOLERANCE_NM = 0.05

_NM_OF_UNIT = {
    r"nm|nano-?met(er|re)s?|nanom\.?": 1.0,
    r"[uμ]m|micro-?met(er|re)s?|microns?|microm\.?": 1e3,
    r"m|met(er|re)s?": 1e9,
}
"""Regular expression of a unit's names, in lower case → nm in the unit."""

_SMALL_UNITS_NM = 1e3
"""Largest unit of a wavelength in the name of a band: there, metres are the size of a pixel."""


def check_layout(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], axes: str = "31, H, W") -> None:
    """Check a stored array's type and shape.

    Args:
        path: The file, for the error message.
        shape: The array's shape.
        dtype: The array's type, which must be a float of any size.
        axes: The order in which the format stores (31, H, W).

    Raises:
        CCNetError: The array is not a cube.
    """
    if dtype.kind != "f" or len(shape) != 3 or shape[axes.split(", ").index("31")] != BAND_COUNT or min(shape) < 1:
        raise CCNetError(f"{path}: not a cube but {dtype} with shape {shape}, expected float ({axes}); convert it")


def check_pixels(path: Path, pixels: int, max_pixels: float) -> None:
    """Raise CCNetError unless a picture has 1 to ``max_pixels`` pixels."""
    if not 0 < pixels <= max_pixels:
        most = "" if math.isinf(max_pixels) else f" to {max_pixels / 1e6:g} million"
        raise CCNetError(f"{path}: {pixels} pixels, expected 1{most or ' or more'}; crop it")


def check_finite(path: Path, cube: npt.NDArray[Any], known: npt.NDArray[np.bool_] | None = None) -> None:
    """Raise CCNetError unless the values of a cube (31, H, W) are finite, where ``known`` is True if it is an array."""
    for index, band in enumerate(cube):
        if not np.isfinite(band if known is None else band[known[index]]).all():
            raise CCNetError(f"{path}: holds NaN or infinite values, expected a finite cube; write it again")


def is_band(wavelengths: npt.NDArray[Any], nm: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return where wavelengths in nm are that of a band, within 0.05 nm; False for NaN."""
    return np.abs(np.asarray(wavelengths, float) - np.asarray(nm, float)) < _WAVELENGTH_TOLERANCE_NM


def check_wavelengths(path: Path, wavelengths: npt.NDArray[Any]) -> None:
    """Raise CCNetError unless wavelengths in nm are those of the 31 bands, ascending."""
    nm = np.asarray(wavelengths, float).ravel()
    expected = f"expected {BANDS_NM[0]}, {BANDS_NM[1]}, … {BANDS_NM[-1]} nm in ascending order"
    if nm.size == BAND_COUNT and all(is_band(nm, BANDS_NM)):
        return
    if nm.size == BAND_COUNT and all(is_band(np.sort(nm), BANDS_NM)):
        raise CCNetError(f"{path}: wrong wavelength order, {expected}; sort the bands")
    raise CCNetError(f"{path}: other wavelengths, {expected}; resample the cube")


def nm_of_unit(unit: str) -> float | None:
    """Return the nanometres in a unit such as nm, Micrometers or m; None for an unknown unit."""
    name = unicodedata.normalize("NFKC", unit).strip().lower()  # the micro sign becomes the letter
    return next((nm for names, nm in _NM_OF_UNIT.items() if re.fullmatch(names, name)), None)


def nm_of_band_name(name: str) -> float | None:
    """Return the wavelength that a band's name begins with, such as ``550 nm`` or ``0.55 µm, green``, in nm."""
    found = re.match(r"\s*([\d.]+)\s*([^\W\d_]+)", name)
    unit = nm_of_unit(found[2]) if found else None
    return float(found[1]) * unit if found and unit and unit <= _SMALL_UNITS_NM else None
