"""Colours of known spectra, and thumbnails."""

from __future__ import annotations

import numpy as np
import pytest

from ccnet.contract import BANDS_NM
from ccnet.runtime.viz.render import Thumbnail, render

NM = np.array(BANDS_NM)


@pytest.mark.parametrize(("reflectance", "grey"), [(0.0, 0), (0.001, 3), (0.18, 118), (0.5, 188), (1.0, 255), (7, 255)])
def test_grey_reflectance_is_neutral_and_on_a_fixed_scale(reflectance: float, grey: int) -> None:
    alone = render(np.full((31, 2, 3), reflectance, np.float32))
    assert alone.dtype == np.uint8 and alone.shape == (2, 3, 3)
    assert (alone == grey).all()
    beside_white = np.ones((31, 1, 2), np.float32)
    beside_white[:, 0, 0] = reflectance
    assert (render(beside_white)[0, 0] == grey).all()


@pytest.mark.parametrize(
    ("low", "high", "order"),
    [(600, 700, "rgb"), (500, 570, "grb"), (400, 480, "brg"), (500, 700, "rgb"), (400, 560, "bgr")],
)
def test_band_of_wavelengths_has_its_colour(low: int, high: int, order: str) -> None:
    spectrum = ((low <= NM) & (high >= NM)).astype(np.float32) * 0.8
    colour = dict(zip("rgb", render(spectrum[:, None, None])[0, 0].astype(int), strict=True))
    assert colour[order[0]] >= colour[order[1]] >= colour[order[2]]
    assert colour[order[0]] - colour[order[2]] > 60


def test_rendering_by_rows_equals_rendering_the_whole_cube() -> None:
    cube = np.random.default_rng(0).random((31, 200, 2), np.float32)
    whole = render(cube)
    for y in (0, 63, 64, 150, 199):
        assert np.array_equal(render(cube[:, y : y + 1]), whole[y : y + 1])


@pytest.mark.parametrize("size", [(30, 50), (1024, 9), (1025, 9), (2500, 33), (9, 3000)])
def test_thumbnail_from_strips_equals_the_thinned_cube(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    frame, cube = rng.integers(0, 256, (*size, 3), np.uint8), rng.random((31, *size), np.float32)
    thumbnail = Thumbnail(*size)
    for top in range(0, size[0], 7):
        thumbnail.write(top, cube[:, top : top + 7])
    step = max(-(-side // 1024) for side in size)
    assert np.array_equal(thumbnail.cube, cube[:, ::step, ::step])
    assert np.array_equal(thumbnail.thin(frame), frame[::step, ::step])
    parts = Thumbnail(*size)
    for top in range(0, size[0], 700):
        for left in range(0, size[1], 701):
            parts.write(top, cube[:, top : top + 700, left : left + 701], left)
    assert np.array_equal(parts.cube, thumbnail.cube)
