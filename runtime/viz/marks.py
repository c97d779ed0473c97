"""The choice of a few pixels whose spectra a picture shows."""

from __future__ import annotations

import math

import numpy as np

from ccnet.runtime.io.frames import Frame
from ccnet.runtime.quality.sampling import farthest_points

_GRID = 48  # longest side of the grid of cells among which marks are chosen
_LEAST_BRIGHTNESS = 0.25  # of a mark, relative to the frame's brightest cell
_LEAST_DISTANCE = 0.08  # of two marks, relative to the frame's longest side: nearer symbols overlap
_CANDIDATES = 8  # for each mark, as some are too near to others
_PLACE_WEIGHT = 0.1  # of a mark's place beside its chromaticity, which alone cannot choose in a grey frame


def choose_marks(frame: Frame, most: int = 4) -> list[tuple[int, int]]:
    """Choose pixels that differ in chromaticity as much as possible (farthest-point sampling).

    The pixels are the centres of grid cells that are bright enough and of even colour, because a pixel on an edge
    mixes the spectra of two materials. They are away from the frame's edge and from each other, so that their symbols
    are whole. The same frame always gives the same pixels.

    Args:
        frame: (H, W, 3) in any frame dtype.
        most: Largest number of pixels.

    Returns:
        Up to ``most`` pixels (y, x).
    """
    sizes = frame.shape[:2]
    y_step, x_step = (math.ceil(size / _GRID) for size in sizes)
    rows, columns = sizes[0] // y_step, sizes[1] // x_step
    cells = frame[: rows * y_step, : columns * x_step].reshape(rows, y_step, columns, x_step, 3).astype(np.float32)
    colours, spread = cells.mean(axis=(1, 3)), cells.std(axis=(1, 3)).max(axis=-1)
    brightness = colours.max(axis=-1)
    good = (brightness >= _LEAST_BRIGHTNESS * brightness.max()) & (spread <= np.median(spread))
    good[[0, -1]] = good[:, [0, -1]] = False  # the frame's edge would cut their symbols
    if not good.any():
        good = brightness == brightness.max()

    places = np.argwhere(good) * (y_step, x_step) + (y_step // 2, x_step // 2)
    chromaticity = colours[good] / np.maximum(colours[good].sum(axis=1, keepdims=True), 1e-9)
    features = np.hstack([chromaticity, _PLACE_WEIGHT * places / sizes])
    first = int(np.linalg.norm(features - features.mean(axis=0), axis=1).argmax())
    chosen: list[tuple[int, int]] = []
    for y, x in places[farthest_points(features, first, _CANDIDATES * most)].tolist():
        if all(math.dist((y, x), mark) >= _LEAST_DISTANCE * max(sizes) for mark in chosen):
            chosen.append((y, x))
    return chosen[:most]
