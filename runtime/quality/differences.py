"""The place where a cube is farthest from its reference, to draw it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .tolerances import worst

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class LargestDifference:
    """The place where a cube is farthest from its reference.

    Attributes:
        differences: (H, W), the largest difference over the bands at each pixel, reflectance.
        pixel: (y, x) of the largest of all.
        expected: The reference's spectrum there, (31,).
        actual: The cube's spectrum there, (31,).
    """

    differences: Array
    pixel: tuple[int, int]
    expected: Array
    actual: Array

    @classmethod
    def between(cls, expected: Array, actual: Array) -> LargestDifference:
        """Return the largest difference of two cubes (31, H, W)."""
        _, y, x = worst(expected, actual)
        differences = np.zeros(actual.shape[1:], np.float32)
        for expected_band, actual_band in zip(expected, actual, strict=True):  # band by band, in little memory
            np.maximum(differences, np.abs(expected_band - actual_band), out=differences)
        return cls(
            differences=differences, pixel=(y, x), expected=expected[:, y, x].copy(), actual=actual[:, y, x].copy()
        )
