"""Choosing few that differ: marks in a picture, frames to calibrate on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def farthest_points(features: npt.NDArray[Any], first: int, most: int) -> list[int]:
    """Indices of at most ``most`` rows: the first, then each time the one farthest from all that were taken.

    features: (n, d), n at least 1; distances are Euclidean.
    """
    taken = [first]
    nearest = np.linalg.norm(features - features[first], axis=1)
    while len(taken) < min(most, len(features)):
        nearest[taken] = -1
        taken.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(features - features[taken[-1]], axis=1))
    return taken
