"""Farthest-point sampling: choose a few items that differ, such as marks in a picture or frames for calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def farthest_points(features: npt.NDArray[Any], first: int, most: int) -> list[int]:
    """Choose rows one after the other, each the farthest from all chosen before (Euclidean distance).

    Args:
        features: (n, d), n at least 1.
        first: Index of the first row.
        most: Largest number of rows.

    Returns:
        Indices of at most ``most`` rows.
    """
    chosen = [first]
    nearest = np.linalg.norm(features - features[first], axis=1)
    while len(chosen) < min(most, len(features)):
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return chosen
