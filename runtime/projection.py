"""A few numbers a pixel instead of 31: bands, ratios of bands, or any linear map, applied window by window.

Legend: values are (31, h, w) float32, a part of a cube; a projection makes (K, h, w) float32 of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError

Array = npt.NDArray[np.float32]

_LEAST = 1e-6
"""A ratio whose denominator is nearer to zero is not defined."""


@dataclass(frozen=True, eq=False)
class Projection:
    """N·s, or (N·s) / (D·s) where there are denominators, of each spectrum s; NaN where a denominator is zero.

    names: K names. numerator, denominator: (K, 31) float32. Made by ``bands``, ``ratios``, ``differences``, ``linear``.
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
        """Some of the bands, by their centres in nm."""
        return cls(tuple(f"{nm} nm" for nm in wavelengths), np.array([_row(nm) for nm in wavelengths], np.float32))

    @classmethod
    def ratios(cls, pairs: Mapping[str, tuple[int, int]]) -> Projection:
        """name → (a, b) in nm: the band at a over the band at b."""
        tops, bottoms = _pairs(pairs)
        return cls(tuple(pairs), tops, bottoms)

    @classmethod
    def differences(cls, pairs: Mapping[str, tuple[int, int]]) -> Projection:
        """name → (a, b) in nm: (a - b) / (a + b), as NDVI and its kin are."""
        tops, bottoms = _pairs(pairs)
        return cls(tuple(pairs), tops - bottoms, tops + bottoms)

    @classmethod
    def linear(cls, matrix: npt.ArrayLike, names: Sequence[str] | None = None) -> Projection:
        """Any (K, 31): principal components, the rows of a classifier, a colour space."""
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
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
            np.divide(out, below, out=out, where=np.abs(below) >= _LEAST)
            out[np.abs(below) < _LEAST] = np.nan


def _row(nm: int) -> Array:
    if nm not in BANDS_NM:
        raise CCNetError(f"there is no band at {nm} nm, expected one of {BANDS_NM[0]}, {BANDS_NM[1]}, … {BANDS_NM[-1]}")
    row: Array = np.eye(len(BANDS_NM), dtype=np.float32)[BANDS_NM.index(nm)]
    return row


def _pairs(pairs: Mapping[str, tuple[int, int]]) -> tuple[Array, Array]:
    rows = np.array([[_row(a), _row(b)] for a, b in pairs.values()], np.float32)
    if not len(rows):
        raise CCNetError("projection has no pair of bands, expected at least one")
    return rows[:, 0], rows[:, 1]
