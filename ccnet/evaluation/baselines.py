"""Baselines without a network: linear and root-polynomial regression from RGB to spectra."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM
from ccnet.contract.gaps import known_values
from ccnet.data.camera import Array
from ccnet.metrics import MRAE_OFFSET

Matrix = npt.NDArray[np.float64]

_TERMS = {1: 3, 2: 6, 3: 13}
"""Degree → number of root-polynomial terms."""


def root_polynomial(frame: Array, degree: int) -> Matrix:
    """Compute the root-polynomial terms of Finlayson et al. 2015.

    Every term is proportional to the exposure, so that a regression from them is, too.

    Args:
        frame: (3, H, W), linear.
        degree: 1 (linear), 2 or 3.

    Returns:
        (terms, H·W): 3, 6 or 13 terms; those of lower degrees come first.
    """
    r, g, b = frame.reshape(3, -1).astype(np.float64)
    terms = [r, g, b]
    if degree >= 2:
        terms += [np.sqrt(r * g), np.sqrt(g * b), np.sqrt(r * b)]
    if degree >= 3:
        terms += [np.cbrt(p) for p in (r * g**2, g * b**2, r * b**2, g * r**2, b * g**2, b * r**2, r * g * b)]
    return np.stack(terms)


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Linear map from a pixel's root-polynomial terms to its spectrum.

    Attributes:
        degree: Degree of the terms, 1 to 3.
        matrix: (terms, 31).
    """

    degree: int
    matrix: Matrix

    def __call__(self, frame: Array) -> Array:
        """Estimate the cube (31, H, W) of a frame (3, H, W)."""
        pixels = self.matrix.T @ root_polynomial(frame, self.degree)
        return pixels.reshape(-1, *frame.shape[1:]).astype(np.float32)


def fit_regressions(pairs: Iterable[tuple[Array, Array]], degrees: Sequence[int] = (1, 2, 3)) -> list[Regression]:
    """Fit regressions of several degrees by least squares over all pixels with data.

    Args:
        pairs: Frames (3, H, W) and cubes (31, H, W), NaN without data; iterated once.
        degrees: Degrees to fit, 1 to 3.

    Returns:
        A regression for each degree.
    """
    highest = max(degrees)
    bands, terms = len(BANDS_NM), _TERMS[highest]
    gram, cross = np.zeros((bands, terms, terms)), np.zeros((bands, terms))
    for frame, cube in pairs:
        pixels, good, values = _with_data(root_polynomial(frame, highest), cube)
        gram[good] += pixels @ pixels.T
        cross[good] += values[good] @ pixels.T
    return [_solve(gram, cross, degree) for degree in degrees]


def fit_relative_regression(pairs: Iterable[tuple[Array, Array]], degree: int = 3) -> Regression:
    """Fit a regression by least squares with each value's squared error weighted by 1 / (Y + 0.02).

    Unweighted least squares favours PSNR and neglects dark values, which MRAE does not. Between the two, this weight
    gives a lower MRAE at about the same PSNR: the strongest baseline without a network.

    Args:
        pairs: Frames (3, H, W) and cubes (31, H, W), NaN without data; iterated once.
        degree: 1 to 3.

    Returns:
        The regression.
    """
    bands, terms = len(BANDS_NM), _TERMS[degree]
    gram, cross = np.zeros((bands, terms, terms)), np.zeros((bands, terms))
    for frame, cube in pairs:
        pixels, good, values = _with_data(root_polynomial(frame, degree), cube)
        for band in good:
            weighted = pixels / (values[band] + MRAE_OFFSET)
            gram[band] += weighted @ pixels.T
            cross[band] += weighted @ values[band]
    return _solve(gram, cross, degree)


def _with_data(pixels: Matrix, cube: Array) -> tuple[Matrix, npt.NDArray[np.intp], Matrix]:
    """Return the terms (terms, P) of the pixels with data, the indices of the bands with data, and values (31, P)."""
    values = cube.reshape(len(cube), -1).astype(np.float64)
    if (known := known_values(values)) is None:
        return pixels, np.arange(len(values)), values
    used = known.any(axis=0)
    return pixels[:, used], np.flatnonzero(known.any(axis=1)), values[:, used]


def _solve(gram: Matrix, cross: Matrix, degree: int) -> Regression:
    """Return the regression of the normal equations (31, terms, terms) and (31, terms), which may hold more terms."""
    n = _TERMS[degree]
    columns = [np.linalg.lstsq(g[:n, :n], c[:n], rcond=None)[0] for g, c in zip(gram, cross, strict=True)]
    return Regression(degree=degree, matrix=np.stack(columns, 1))
