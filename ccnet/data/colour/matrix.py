"""Colour matrices of measured responses and of pairs of colours, by least squares with white preserved.

Legend: S is a camera's response (31, 3), T that of the weights' camera; a matrix M (3, 3) gives M @ (R, G, B).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.data.camera import Camera
from ccnet.data.spectra import Values, read_spectra

SMOOTHNESS = 0.98
"""Correlation of a reflectance at neighbouring bands where no spectra are given; docs/decisions.md has the choice."""

Fitted = npt.NDArray[np.float64]


def smooth_reflectances() -> Values:
    """Return the second moments (31, 31) of reflectances of which only their smoothness is assumed.

    They are those of a first-order Markov process, the prior of Pratt and Mancill (1976): bands d places apart have the
    correlation 0.98^d. A fit to them needs no measured spectra.
    """
    places = np.arange(len(BANDS_NM))
    return SMOOTHNESS ** np.abs(places[:, None] - places).astype(np.float64)


def read_reflectances(path: Path) -> Values:
    """Return the second moments (31, 31) of measured reflectances.

    Args:
        path: ``.npz`` or ``.npy`` with arrays (N, 31) of reflectances on the cube's bands, or a table of
            ``read_spectra`` with a column for each surface, whose scale does not count.

    Returns:
        Mean of the products of bands over all surfaces.

    Raises:
        CCNetError: The file holds no such spectra.
    """
    if path.suffix.lower() in (".npz", ".npy"):
        spectra = read_surfaces(path)
    else:
        spectra = read_spectra(path, "reflectance spectra", lambda names: list(range(len(names)))).values.T
    return spectra.T @ spectra / len(spectra)


def read_surfaces(path: Path) -> Values:
    """Return all reflectances (N, 31) of a ``.npz`` or ``.npy``; a CCNetError if there are none."""
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = [loaded] if isinstance(loaded, np.ndarray) else [loaded[name] for name in loaded.files]
    except Exception as error:  # numpy raises nearly every type on damaged bytes
        raise CCNetError(f"{path}: cannot be read ({type(error).__name__}), expected arrays (N, 31)") from error
    kept = [
        array for array in arrays if array.ndim == 2 and array.shape[1] == len(BANDS_NM) and array.dtype.kind == "f"
    ]
    if not kept or not all(len(array) and np.isfinite(array).all() for array in kept):
        raise CCNetError(f"{path}: holds no finite reflectances, expected arrays (N, 31) of 400, 410 … 700 nm")
    return np.concatenate(kept).astype(np.float64)


def fit_matrix(camera: Camera, target: npt.NDArray[np.floating], moments: Values) -> Fitted:
    """Return the matrix that brings a camera's colours closest to those of the weights' camera.

    It minimises the mean squared error over reflectances of these second moments K, subject to white staying white:
    M (3, 3) = argmin E |M Sᵀh - Tᵀh|², M (1, 1, 1)ᵀ = (1, 1, 1)ᵀ, E hhᵀ = K.

    Args:
        camera: The white-balanced camera in its light, S.
        target: Response (31, 3) of the weights' camera, T.
        moments: K (31, 31), see ``smooth_reflectances``.

    Returns:
        The matrix (3, 3).
    """
    source = camera.response.astype(np.float64)
    gram = source.T @ moments @ source
    cross = source.T @ moments @ target.astype(np.float64)
    return _keep_white(gram, cross)


def fit_colours(measured: Fitted, wanted: Fitted) -> Fitted:
    """Return the matrix (3, 3) from measured colours (N, 3) to wanted ones, white-balanced both, white preserved."""
    return _keep_white(measured.T @ measured, measured.T @ wanted)


def matrix_error(camera: Camera, target: npt.NDArray[np.floating], moments: Values, matrix: Fitted) -> float:
    """Return the root mean squared error of the matrix over reflectances, relative to the root mean square of T's."""
    leftover = camera.response.astype(np.float64) @ matrix.T - target.astype(np.float64)
    wanted = target.T.astype(np.float64) @ moments @ target
    return float(np.sqrt(np.trace(leftover.T @ moments @ leftover) / np.trace(wanted)))


def _keep_white(gram: Fitted, cross: Fitted) -> Fitted:
    """Return the least squares' matrix whose rows sum to 1, by a Lagrange multiplier."""
    free, ones = np.linalg.solve(gram, cross), np.ones(3)
    direction = np.linalg.solve(gram, ones)
    return (free + np.outer(direction, 1 - ones @ free) / (ones @ direction)).T
