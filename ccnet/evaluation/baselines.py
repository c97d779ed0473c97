"""What a user could do without a network: linear and root-polynomial regression from RGB to spectra."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM
from ccnet.data.camera import Array
from ccnet.metrics import MRAE_OFFSET

Matrix = npt.NDArray[np.float64]

_TERMS = {1: 3, 2: 6, 3: 13}
"""Degree → number of root-polynomial terms; those of a lower degree come first."""


def root_polynomial(frame: Array, degree: int) -> Matrix:
    """Root-polynomial terms (Finlayson et al. 2015) of degree 1 (linear), 2 or 3: (3, H, W) → (terms, H·W).

    Every term scales with exposure, so the regression is exposure-invariant.
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
    """Spectra as a linear map of a pixel's root-polynomial terms.

    matrix: (terms of the degree, 31).
    """

    degree: int
    matrix: Matrix

    def __call__(self, frame: Array) -> Array:
        """frame (3, H, W) → cube (31, H, W)."""
        pixels = self.matrix.T @ root_polynomial(frame, self.degree)
        cube: Array = pixels.reshape(-1, *frame.shape[1:]).astype(np.float32)
        return cube


def fit_regressions(pairs: Iterable[tuple[Array, Array]], degrees: Sequence[int] = (1, 2, 3)) -> list[Regression]:
    """Least squares over all pixels of all pairs: frame (3, H, W), cube (31, H, W). Each pair is seen once."""
    highest = max(degrees)
    gram = cross = np.zeros(1)
    for frame, cube in pairs:
        terms = root_polynomial(frame, highest)
        gram = gram + terms @ terms.T
        cross = cross + terms @ cube.reshape(len(cube), -1).T.astype(np.float64)
    return [
        Regression(degree=degree, matrix=np.asarray(np.linalg.lstsq(gram[:n, :n], cross[:n], rcond=None)[0]))
        for degree, n in ((degree, _TERMS[degree]) for degree in degrees)
    ]


def fit_relative(pairs: Iterable[tuple[Array, Array]], degree: int = 3) -> Regression:
    """As ``fit_regressions``, with each value's squared error weighted by 1 / (Y + 0.02).

    Plain least squares serves PSNR and neglects dark values, which MRAE does not. Between the two, this weight gives a
    lower MRAE at about the same PSNR: the strongest opponent that needs no network.
    """
    gram, cross = np.zeros((len(BANDS_NM), _TERMS[degree], _TERMS[degree])), np.zeros((len(BANDS_NM), _TERMS[degree]))
    for frame, cube in pairs:
        terms = root_polynomial(frame, degree)
        for band, values in enumerate(cube.reshape(len(cube), -1).astype(np.float64)):
            weighted = terms / (values + MRAE_OFFSET)
            gram[band] += weighted @ terms.T
            cross[band] += weighted @ values
    columns = [np.linalg.lstsq(g, c, rcond=None)[0] for g, c in zip(gram, cross, strict=True)]
    return Regression(degree=degree, matrix=np.stack(columns, 1))
