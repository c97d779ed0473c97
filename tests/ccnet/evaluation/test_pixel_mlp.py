"""The per-pixel MLP as an opponent: it learns colours, and nothing but the seed decides the result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ccnet.data.camera import Array, Camera
from ccnet.evaluation import pixel_mlp
from ccnet.evaluation.pixel_mlp import fit_pixel_mlp
from ccnet.metrics import mrae
from tests.ccnet.evaluation.conftest import grey

MakeCube = Callable[..., Array]


def two_colours(make_cube: MakeCube, camera: Camera) -> tuple[Array, Array]:
    """Return a frame of two spectra at many levels of brightness, and its cube."""
    spectra = make_cube(1, 2)[:, 0]
    levels = np.linspace(0.1, 1, 100, dtype=np.float32).reshape(10, 10)
    cube = np.stack([spectra[:, 0, None, None] * levels, spectra[:, 1, None, None] * levels], 3).reshape(31, 10, 20)
    return camera.frame(cube), cube


def test_mlp_learns_the_spectrum_of_each_colour(
    make_cube: MakeCube, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_mlp, "PASSES", 80)
    frame, cube = two_colours(make_cube, camera)
    gaps = cube.copy()
    gaps[3, :10] = np.nan  # no data there
    method = fit_pixel_mlp([(frame, gaps)], 1)
    assert mrae(cube, method(frame)) < 0.15 < mrae(cube, grey(frame)) / 3
    np.testing.assert_allclose(method(frame / 4) * 4, method(frame), rtol=1e-4, atol=1e-6)


def test_seed_decides_the_result(make_cube: MakeCube, camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where pixels are drawn from scenes that are too large."""
    monkeypatch.setattr(pixel_mlp, "MAX_PIXELS", 200)
    pairs = [two_colours(make_cube, camera)] * 2
    first, again, other = (fit_pixel_mlp(iter(pairs), 2, seed)(pairs[0][0]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
