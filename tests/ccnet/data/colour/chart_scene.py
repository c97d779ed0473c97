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
    return _expose(chart, np.vstack([turn, (0, 0, 1)]), SHAPE, falloff, noise)


def passport(colours: npt.NDArray[np.float64], angle: float = 8, fill: float = 0.85, lean: float = 0.1) -> Picture:
    """Return a photograph (600, 800, 3) of an open ColorChecker Passport.

    The classic page lies below the page for creative enhancement, which has rows of 8 colours, twice 6 tints and 8
    greys. Its colours are random, as no measured ones are at hand.

    Args:
        colours: (24, 3), row by row, whose last row has the greys.
        angle: Rotation, degrees.
        fill: Side of the turned case as a share of the picture's.
        lean: Share of its width that the far edge of the upper page loses, as it leans back.
    """
    random, white = np.random.default_rng(1), colours[18]
    enhancement = [
        white * random.uniform(0.05, 0.9, (8, 3)),
        *(white * random.uniform(0.4, 0.6, (6, 1)) * random.uniform(0.9, 1.1, (6, 3)) for _ in range(2)),
        white * np.r_[2 ** (-np.arange(4) / 3), 0.1 * 2 ** (-np.arange(4) / 3)][:, None],
    ]
    upper, lower = _page(enhancement), _page(list(colours.reshape(4, 6, 3)))
    rows, columns = upper.shape[:2]
    edge, near = lean * columns / 2, [(columns, rows), (0, rows)]
    corners = np.array([[(0, 0), (columns, 0), *near], [(edge, lean * rows), (columns - edge, lean * rows), *near]])
    upper = cv2.warpPerspective(upper, cv2.getPerspectiveTransform(*corners.astype(np.float32)), (columns, rows))
    case, shape = np.concatenate([upper, lower]), (600, 800)
    turn = cv2.getRotationMatrix2D((columns / 2, rows), angle, 1)
    width, height = np.abs(turn[:, :2]) @ (columns, 2 * rows)
    scale = fill * min(shape[0] / height, shape[1] / width)
    turn[:, 2] += -columns / 2, -rows
    move = np.array([[scale, 0, shape[1] / 2], [0, scale, shape[0] / 2], [0, 0, 1]])
    return _expose(case, move @ np.vstack([turn, (0, 0, 1)]), shape, 0.3, 0.01)


def _page(rows: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Return a page of the Passport, 125×90 mm at 8 px/mm, with rows of patches from edge to edge."""
    page = np.full((720, 1000, 3), 0.02)
    for row, colours in enumerate(rows):
        pitch = 856 / len(colours)
        for column, colour in enumerate(colours):
            top, left = 72 + 144 * row, round(72 + column * pitch)
            page[top + 6 : top + 138, left + 6 : round(left + pitch) - 6] = colour
    return page


def _expose(
    chart: npt.NDArray[np.float64],
    place: npt.NDArray[np.float64],
    shape: tuple[int, int],
    falloff: float,
    noise: float,
) -> Picture:
    """Return the photograph of a chart, placed by a homography, before a grey wall."""
    height, width = shape
    turned, inside = (
        cv2.warpPerspective(each, place, (width, height), flags=cv2.INTER_LINEAR)
        for each in (chart, np.ones(chart.shape[:2]))
    )
    light = cv2.GaussianBlur(np.where(inside[..., None] > 0.99, turned, 0.25), (0, 0), 0.8)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = light * (1 - falloff * (x**2 + y**2) / 2)[..., None]
    grain = np.random.default_rng(0).normal(size=light.shape) * noise * np.sqrt(np.maximum(light, 0) + 0.01)
    return np.clip(light + grain, 0, 1).astype(np.float32)
