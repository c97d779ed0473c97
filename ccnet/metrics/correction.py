"""The correction of a cube by its own frame: its spectra move until the camera would see the frame; numpy only.

Legend: a frame is (H, W, 3), linear, in the channels that the network takes; a part of the cube is (31, h, w) float32;
a response is (31, 3), of the frame's channels, with columns that sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import FRAME_SCALE

from .reprojection import SATURATED, reproject

Array = npt.NDArray[np.float32]

FLOOR = 0.3
"""Uncertainty of a band whose value is 0, as a share of the pixel's mean; that of others grows with their values."""

CORRELATION = math.exp(-1 / 4)
"""Correlation of the errors of neighbouring bands; of bands d places apart, its power d."""

NOISE_SHARE, LEAST_NOISE = 0.005, 0.0005
"""Standard deviation of a frame's errors: a share of the pixel's mean, and the least constant part."""

_PIXELS = 2048
"""Pixels at a time: few enough for a core's cache, and for OpenBLAS to start no threads of its own."""


class FrameCorrection:
    """Corrects parts of a cube in place, before the writers after it take them.

    Eq. 2 gives the frame f = Sᵀ y of a spectrum y. Of the spectra that give a pixel of the frame, the correction takes
    the likeliest near the estimate, whose bands have errors in proportion to their values, alike in neighbouring bands:
    y + V S (Sᵀ V S + σ² I)⁻¹ (f - Sᵀ y), with V = D C D, D = diag(max(y, 0) + FLOOR · mean(f)) and correlations C. It
    is the update of a linear Gaussian model by a measurement f with the noise σ. Saturated pixels stay as they are, as
    Eq. 2 does not hold there.

    An estimate that explains its frame already is not changed. What no camera sees, metamers, stays as it is.
    docs/decisions.md says how the constants were chosen.
    """

    def __init__(
        self,
        frame: npt.NDArray[Any],
        response: Array,
        matrix: npt.NDArray[np.floating] | None = None,
        white: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        """Prepare the correction of a frame's cube; nothing is computed.

        Args:
            frame: The frame (H, W, 3).
            response: Response (31, 3) of its channels.
            matrix: Colour matrix (3, 3) that the frame went through after the sensor; None is none.
            white: Values of a saturated sample in the sensor's channels, before the matrix.
        """
        self._frame = frame
        self._response = response
        self._to_sensor = None if matrix is None else np.linalg.inv(matrix).astype(np.float32)
        self._saturated = np.array(white, np.float32)[:, None] * np.float32(SATURATED)
        self._scale = np.float32(FRAME_SCALE[frame.dtype.name])
        self._noise = max(LEAST_NOISE, 0.0 if frame.dtype == np.float32 else 1 / (math.sqrt(12) * float(self._scale)))

    def write(self, top: int, part: Array, left: int = 0) -> None:
        """Correct a part (31, h, w) of the cube in place, from row ``top`` and column ``left`` on."""
        step = max(1, _PIXELS // part.shape[2])
        for first in range(0, part.shape[1], step):
            rows = part[:, first : first + step]
            start = top + first
            pixels = self._frame[start : start + rows.shape[1], left : left + rows.shape[2]]
            rows += self._change(rows.reshape(len(rows), -1), pixels.reshape(-1, 3).T / self._scale).reshape(rows.shape)

    def _change(self, spectra: Array, frame: Array) -> Array:
        """Return what is added to spectra (31, N) by their frame (3, N) in [0, 1]."""
        mean = frame.mean(axis=0)
        uncertainty = np.maximum(spectra, 0) + np.float32(FLOOR) * mean
        seen = self._response[:, :, None] * uncertainty[:, None, :]  # Dᵀ S of each pixel, (31, 3, N)
        correlated = _correlate(seen)
        system = np.einsum("bin,bjn->ijn", seen, correlated).astype(np.float64)
        system += np.square(NOISE_SHARE * mean.astype(np.float64) + self._noise) * np.eye(3)[:, :, None]
        difference = np.where(self._clipped(frame), 0, frame - reproject(spectra, self._response))
        steps = _solve(system, difference.astype(np.float64)).astype(np.float32)
        return np.asarray(uncertainty * np.einsum("bin,in->bn", correlated, steps))

    def _clipped(self, frame: Array) -> npt.NDArray[np.bool_]:
        """Return where a frame (3, N) was clipped: in the sensor, or by its matrix, which can also clip at 0."""
        if self._to_sensor is None:
            return np.asarray((frame >= self._saturated).any(axis=0))
        in_sensor = (self._to_sensor @ frame >= self._saturated).any(axis=0)
        return np.asarray(in_sensor | (frame.max(axis=0) >= SATURATED) | (frame.min(axis=0) <= 0))


def _correlate(values: Array) -> Array:
    """Return C times values (31, ...), with the powers of CORRELATION summed from band to band in both directions."""
    up, down, share = values.copy(), values.copy(), np.float32(CORRELATION)
    for band in range(1, len(values)):
        up[band] += share * up[band - 1]
        down[-1 - band] += share * down[-band]
    up += down
    up -= values
    return up


def _solve(systems: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the solutions (3, N) of linear systems (3, 3, N) by Cramer's rule: LAPACK takes several times as long.

    The noise on the diagonal keeps the determinants far from 0 in float64.
    """
    first, second, third = systems
    cofactors = np.stack([_cross(second, third), _cross(third, first), _cross(first, second)])
    return np.asarray(np.einsum("jin,jn->in", cofactors, right) / np.einsum("in,in->n", first, cofactors[0]))


def _cross(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the cross products (3, N) of vectors (3, N)."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def corrected(cube: Array, frame: Array, response: Array) -> Array:
    """Return a whole cube (31, H, W) after the correction by its frame (3, H, W), float32 in [0, 1]."""
    result = cube.copy()
    FrameCorrection(frame.transpose(1, 2, 0), response).write(0, result)
    return result
