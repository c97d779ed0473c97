"""A simulated photograph of a colour chart: turned, unevenly lit, blurred and noisy."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32]

SIDE, GAP, BORDER = 48, 8, 24
SHAPE = (480, 640)


def photograph(
    colours: npt.NDArray[np.float64], angle: float = 8, falloff: float = 0.4, noise: float = 0.01
) -> Picture:
    """Return a photograph (480, 640, 3), linear in [0, 1].

    Args:
        colours: (24, 3), row by row.
        angle: Rotation, degrees.
        falloff: Share of the light that is lost in the corners.
        noise: Standard deviation of the noise at white, growing with the square root of the light.
    """
    chart = np.full((4 * SIDE + 3 * GAP + 2 * BORDER, 6 * SIDE + 5 * GAP + 2 * BORDER, 3), 0.02)
    for index, colour in enumerate(colours):
        top, left = (BORDER + place * (SIDE + GAP) for place in divmod(index, 6))
        chart[top : top + SIDE, left : left + SIDE] = colour
    (height, width), (rows, columns) = SHAPE, chart.shape[:2]
    turn = cv2.getRotationMatrix2D((columns / 2, rows / 2), angle, 1)
    turn[:, 2] += (width / 2 - columns / 2 + 20, height / 2 - rows / 2 - 10)
    turned, inside = (cv2.warpAffine(each, turn, (width, height)) for each in (chart, np.ones((rows, columns))))
    light = cv2.GaussianBlur(np.where(inside[..., None] > 0.99, turned, 0.25), (0, 0), 0.8)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = light * (1 - falloff * (x**2 + y**2) / 2)[..., None]
    grain = np.random.default_rng(0).normal(size=light.shape) * noise * np.sqrt(np.maximum(light, 0) + 0.01)
    return np.clip(light + grain, 0, 1).astype(np.float32)
