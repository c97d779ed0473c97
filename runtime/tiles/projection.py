"""Projections of spectra to K values a pixel: bands, ratios of bands, or any linear map, applied tile by tile.

Legend: values are (31, h, w) float32, a part of a cube; a projection computes (K, h, w) float32 from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError

Array = npt.NDArray[np.float32]

_MIN_DENOMINATOR = 1e-6
"""A ratio whose denominator is nearer to zero is NaN."""


@dataclass(frozen=True, eq=False)
class Projection:
    """N·s or (N·s) / (D·s) of each spectrum s. Use ``bands``, ``ratios``, ``differences`` or ``linear`` to create it.

    Attributes:
        names: K names.
        numerator: N, (K, 31) float32.
        denominator: D, (K, 31) float32, or None. A value is NaN where D·s is zero.
    """

    names: tuple[str, ...]
    numerator: Array
    denominator: Array | None = None

    def __post_init__(self) -> None:
        for matrix in (self.numerator, self.denominator):
            if matrix is None:
                continue
            if matrix.shape != (len(self.names), len(BANDS_NM)) or not len(self.names) or matrix.dtype != np.float32:
                raise CCNetError(
                    f"projection is {matrix.dtype} {matrix.shape} with {len(self.names)} names, expected float32"
                    f" (K, {len(BANDS_NM)}) with K names"
                )
            if not np.isfinite(matrix).all():
                raise CCNetError("projection holds NaN or infinite values, expected finite ones")

    @classmethod
    def bands(cls, *wavelengths: int) -> Projection:
        """Return a projection to some of the bands, by their centres in nm."""
        return cls(tuple(f"{nm} nm" for nm in wavelengths), np.array([_row(nm) for nm in wavelengths], np.float32))

    @classmethod
    def ratios(cls, pairs: Mapping[str, tuple[int, int]]) -> Projection:
        """Return the ratios a / b of bands; ``pairs`` is name → (a, b) in nm."""
        tops, bottoms = _pairs(pairs)
        return cls(tuple(pairs), tops, bottoms)

    @classmethod
    def differences(cls, pairs: Mapping[str, tuple[int, int]]) -> Projection:
        """Return normalised differences (a - b) / (a + b) such as NDVI; ``pairs`` is name → (a, b) in nm."""
        tops, bottoms = _pairs(pairs)
        return cls(tuple(pairs), tops - bottoms, tops + bottoms)

    @classmethod
    def linear(cls, matrix: npt.ArrayLike, names: Sequence[str] | None = None) -> Projection:
        """Return any linear map: principal components, the rows of a classifier, a colour space.

        Args:
            matrix: Numbers (K, 31), or (31,) for K = 1.
            names: K names; None numbers the rows.

        Returns:
            The projection.

        Raises:
            CCNetError: The matrix is not made of finite numbers, or has another shape.
        """
        try:
            with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, and is refused
                rows = np.atleast_2d(np.asarray(matrix).astype(np.float32, casting="same_kind"))
        except (TypeError, ValueError) as error:
            raise CCNetError(
                f"projection is not a matrix of numbers ({error}), expected (K, {len(BANDS_NM)})"
            ) from error
        return cls(tuple(names) if names is not None else tuple(map(str, range(len(rows)))), rows)

    def __call__(self, values: Array, out: Array) -> None:
        """Project values (31, h, w) into out (K, h, w)."""
        out[...] = np.tensordot(self.numerator, values, axes=1)
        if self.denominator is not None:
            below = np.tensordot(self.denominator, values, axes=1)
            np.divide(out, below, out=out, where=np.abs(below) >= _MIN_DENOMINATOR)
            out[np.abs(below) < _MIN_DENOMINATOR] = np.nan


def _row(nm: int) -> Array:
    if nm not in BANDS_NM:
        raise CCNetError(f"there is no band at {nm} nm, expected one of {BANDS_NM[0]}, {BANDS_NM[1]}, … {BANDS_NM[-1]}")
    return np.eye(len(BANDS_NM), dtype=np.float32)[BANDS_NM.index(nm)]


def _pairs(pairs: Mapping[str, tuple[int, int]]) -> tuple[Array, Array]:
    rows = np.array([[_row(a), _row(b)] for a, b in pairs.values()], np.float32)
    if not len(rows):
        raise CCNetError("projection has no pair of bands, expected at least one")
    return rows[:, 0], rows[:, 1]
