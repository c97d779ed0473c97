"""What a user could do without a network: linear and root-polynomial regression from RGB to spectra."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ccnet.camera import Array, Camera


def root_polynomial(frame: Array, degree: int) -> npt.NDArray[np.float64]:
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


class Regression:
    """Least squares from root-polynomial terms of the frame to the cube, over all pixels of the training cubes."""

    def __init__(self, cubes: Sequence[Array], camera: Camera, degree: int) -> None:
        self.degree = degree
        gram: npt.NDArray[np.float64] | float = 0.0
        cross: npt.NDArray[np.float64] | float = 0.0
        for cube in cubes:
            terms = root_polynomial(camera.frame(cube), degree)
            gram = gram + terms @ terms.T
            cross = cross + terms @ cube.reshape(len(cube), -1).T.astype(np.float64)
        self.matrix = np.linalg.lstsq(np.asarray(gram), np.asarray(cross), rcond=None)[0]  # (terms, 31)

    def __call__(self, frame: Array) -> Array:
        """frame (3, H, W) → cube (31, H, W)."""
        pixels = self.matrix.T @ root_polynomial(frame, self.degree)
        cube: Array = pixels.reshape(-1, *frame.shape[1:]).astype(np.float32)
        return cube
