"""What a user could do without a network: exact where the world is linear, and blind to exposure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ccnet.baselines import Regression, root_polynomial
from ccnet.camera import Array, Camera
from ccnet.datasets import cave_scenes, read_cave
from ccnet.metrics import mrae

MakeCube = Callable[..., Array]
DEGREES = pytest.mark.parametrize("degree", [1, 2, 3])


@DEGREES
def test_spectra_of_three_dimensions_are_recovered(degree: int, camera: Camera) -> None:
    rng = np.random.default_rng(0)
    basis = np.abs(rng.normal(size=(31, 3))) / 6

    def cube(size: int) -> Array:
        return np.einsum("bi,ihw->bhw", basis, rng.random((3, size, size))).astype(np.float32)

    regression = Regression([cube(20), cube(12)], camera, degree)
    fresh = cube(9)
    assert regression.matrix.shape == ({1: 3, 2: 6, 3: 13}[degree], 31)
    np.testing.assert_allclose(regression(camera.frame(fresh)), fresh, rtol=0, atol=1e-4)


@DEGREES
def test_twice_the_light_is_twice_the_spectrum(degree: int, make_cube: MakeCube, camera: Camera) -> None:
    regression = Regression([make_cube(24, 24)], camera, degree)
    frame = camera.frame(make_cube(8, 10, 1)) / 4
    np.testing.assert_allclose(regression(2 * frame), 2 * regression(frame), rtol=1e-5, atol=1e-7)


def test_terms_of_one_pixel() -> None:
    terms = root_polynomial(np.array([8, 1, 27], np.float32).reshape(3, 1, 1), 3).ravel()
    expected = [8, 1, 27, 8**0.5, 27**0.5, 216**0.5, 8 ** (1 / 3), 9, 5832 ** (1 / 3), 4, 3, 12, 6]
    np.testing.assert_allclose(np.sort(terms), np.sort(expected))


@pytest.mark.slow
@pytest.mark.parametrize(("degree", "error"), [(1, 0.175), (2, 0.136), (3, 0.131)])
def test_the_benchmarks_reference_errors(shared: Path, degree: int, error: float) -> None:
    """CAVE, cie_1964_w_gain: MRAE on the three validation scenes, as it was first measured with other code."""
    camera = Camera.read(shared / "cameras" / "cie_1964_w_gain.npz")
    train, val = ([read_cave(scene) for scene in cave_scenes(shared / "cave" / name)] for name in ("train", "val"))
    regression = Regression(train, camera, degree)
    measured = np.mean([mrae(cube, regression(camera.frame(cube))) for cube in val])
    assert measured == pytest.approx(error, abs=4e-3)
