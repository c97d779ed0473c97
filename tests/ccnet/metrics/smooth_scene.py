"""A camera of three bumps, and scenes of smooth spectra, for tests of a cube against its frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM

Array = npt.NDArray[Any]

NM = np.array(BANDS_NM)[:, None]


def response(*peaks: float) -> Array:
    """Return the response (31, 3) of three Gaussians at these wavelengths, nm."""
    curves = np.exp(-(((NM - np.array(peaks)) / 40) ** 2))
    return (curves / curves.sum(axis=0)).astype(np.float32)


RESPONSE = response(600, 540, 450)


def scene(height: int, width: int) -> Array:
    """Return a cube of smooth spectra, some of them dark, reflectance up to 0.9."""
    rng = np.random.default_rng(0)
    bumps = np.exp(-(((NM - rng.uniform(400, 700, 5)) / 50) ** 2))
    return np.einsum("bi,hwi->bhw", bumps, rng.dirichlet(np.ones(5), (height, width))).astype(np.float32) * 0.9
