"""Values without data: NaN in a scene's cube, which neither trains nor counts.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1]; float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract.gaps import known_values

from .camera import Array


def fill_for_camera(cube: Array) -> Array:
    """Return a cube that a camera can make a frame of: finite everywhere.

    Args:
        cube: (31, H, W), NaN where it has no data.

    Returns:
        The cube itself where it has data everywhere. Else a copy, in which pixels without data are black, and a band
        without data is interpolated between its nearest bands, because a frame needs all of them.
    """
    if (known := known_values(cube)) is None:
        return cube
    filled = cube.copy()
    filled[:, ~known.any(axis=0)] = 0
    good = np.flatnonzero(known.any(axis=(1, 2)))
    if good.size:
        for band in np.setdiff1d(np.arange(len(cube)), good):
            place = np.interp(band, good, np.arange(good.size))
            low, high = good[int(np.floor(place))], good[int(np.ceil(place))]
            share = np.float32(place % 1)
            filled[band] = (1 - share) * filled[low] + share * filled[high]
    return filled


def known_mean(values: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """Return the mean along an axis of the values that are not NaN; NaN where all of them are."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    return np.asarray(np.where(known, values, 0).sum(axis=axis) / np.where(count, count, np.nan))
