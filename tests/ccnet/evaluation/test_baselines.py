"""Regressions from RGB: exact on spectra of three dimensions, and proportional to the exposure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ccnet.data.camera import Array, Camera
from ccnet.data.datasets import cave_scenes
from ccnet.data.readers import read_cave
from ccnet.evaluation.baselines import Regression, fit_regressions, fit_relative_regression, root_polynomial
from ccnet.metrics import mrae, psnr

MakeCube = Callable[..., Array]
DEGREES = pytest.mark.parametrize("degree", [1, 2, 3])
TERMS = {1: 3, 2: 6, 3: 13}


def pairs(camera: Camera, *cubes: Array) -> list[tuple[Array, Array]]:
    return [(camera.frame(cube), cube) for cube in cubes]


@DEGREES
def test_spectra_of_three_dimensions_are_recovered(degree: int, camera: Camera) -> None:
    rng = np.random.default_rng(0)
    basis = np.abs(rng.normal(size=(31, 3))) / 6

    def cube(size: int) -> Array:
        return np.einsum("bi,ihw->bhw", basis, rng.random((3, size, size))).astype(np.float32)

    (regression,) = fit_regressions(pairs(camera, cube(20), cube(12)), [degree])
    fresh = cube(9)
    assert regression.matrix.shape == (TERMS[degree], 31)
    np.testing.assert_allclose(regression(camera.frame(fresh)), fresh, rtol=0, atol=1e-4)


@DEGREES
def test_regression_is_least_squares_over_all_pixels(degree: int, make_cube: MakeCube, camera: Camera) -> None:
    """Also if several degrees are fitted in one pass, from pairs that can be iterated only once."""
    known = pairs(camera, make_cube(12, 10), make_cube(9, 14, 1))
    together = fit_regressions(iter(known))
    assert [regression.degree for regression in together] == [1, 2, 3]
    terms = np.hstack([root_polynomial(frame, degree) for frame, _ in known]).T
    spectra = np.hstack([cube.reshape(31, -1) for _, cube in known]).T
    expected, *_ = np.linalg.lstsq(terms, spectra.astype(np.float64), rcond=None)
    fresh = root_polynomial(camera.frame(make_cube(8, 8, 2)), degree).T
    np.testing.assert_allclose(fresh @ together[degree - 1].matrix, fresh @ expected, rtol=0, atol=1e-4)


@DEGREES
def test_relative_regression_weights_each_value(degree: int, make_cube: MakeCube, camera: Camera) -> None:
    known = pairs(camera, make_cube(12, 10), make_cube(9, 14, 1))
    terms = np.hstack([root_polynomial(frame, degree) for frame, _ in known]).T
    fresh = root_polynomial(camera.frame(make_cube(8, 8, 2)), degree).T
    found = fresh @ fit_relative_regression(iter(known), degree).matrix
    for band in (0, 17, 30):
        values = np.hstack([cube[band].ravel() for _, cube in known]).astype(np.float64)
        root = 1 / np.sqrt(values + 0.02)
        expected, *_ = np.linalg.lstsq(root[:, None] * terms, root * values, rcond=None)
        np.testing.assert_allclose(found[:, band], fresh @ expected, rtol=0, atol=1e-4)


@DEGREES
def test_regression_is_proportional_to_exposure(degree: int, make_cube: MakeCube, camera: Camera) -> None:
    (regression,) = fit_regressions(pairs(camera, make_cube(24, 24)), [degree])
    frame = camera.frame(make_cube(8, 10, 1)) / 4
    np.testing.assert_allclose(regression(2 * frame), 2 * regression(frame), rtol=1e-5, atol=1e-7)


def test_root_polynomial_terms_of_one_pixel() -> None:
    pixel = np.array([8, 1, 27], np.float32).reshape(3, 1, 1)
    expected = [8, 1, 27, 8**0.5, 27**0.5, 216**0.5, 8 ** (1 / 3), 9, 5832 ** (1 / 3), 4, 3, 12, 6]
    for degree, count in TERMS.items():  # those of a lower degree come first, in the same order
        terms = root_polynomial(pixel, degree).ravel()
        np.testing.assert_allclose(np.sort(terms), np.sort(expected[:count]))
        np.testing.assert_array_equal(terms, root_polynomial(pixel, 3).ravel()[:count])


@pytest.mark.slow
def test_reference_figures_on_cave(shared: Path) -> None:
    """CAVE, cie_1964_w_gain, three validation scenes, against figures that other code measured.

    The other code weights each pixel's squared error by 1 / (its mean reflectance + 0.02)²; without weights, as here,
    MRAE is up to 2 % larger and PSNR 2.7 to 4.2 dB higher.
    """
    camera = Camera.read(shared / "cameras" / "cie_1964_w_gain.npz")
    train, val = ([read_cave(scene) for scene in cave_scenes(shared / "cave" / name)] for name in ("train", "val"))
    known = pairs(camera, *train)
    plain = {
        1: (0.1757, 28.55),
        2: (0.1372, 29.11),
        3: (0.1340, 29.31),
    }
    for regression in fit_regressions(known):
        assert _figures(regression, camera, val) == pytest.approx(plain[regression.degree], rel=1e-3)
    reference = {1: (0.175, 25.9), 2: (0.136, 26.1), 3: (0.131, 25.1)}
    for degree, (error, decibel) in reference.items():
        weighted = Regression(degree=degree, matrix=_weighted(known, degree))
        assert _figures(weighted, camera, val) == (pytest.approx(error, abs=6e-4), pytest.approx(decibel, abs=0.06))


def _figures(regression: Regression, camera: Camera, cubes: list[Array]) -> tuple[float, float]:
    results = [(cube, regression(camera.frame(cube))) for cube in cubes]
    return float(np.mean([mrae(*pair) for pair in results])), float(np.mean([psnr(*pair) for pair in results]))


def _weighted(known: list[tuple[Array, Array]], degree: int) -> npt.NDArray[np.float64]:
    gram = cross = np.zeros(1)
    for frame, cube in known:
        terms, spectra = root_polynomial(frame, degree), cube.reshape(31, -1).astype(np.float64)
        weighted = terms / (spectra.mean(axis=0) + 0.02) ** 2
        gram, cross = gram + weighted @ terms.T, cross + weighted @ spectra.T
    matrix, *_ = np.linalg.lstsq(gram, cross, rcond=None)
    return matrix


@DEGREES
def test_values_without_data_are_not_fitted(degree: int, make_cube: MakeCube, camera: Camera) -> None:
    """Each band's regression is that of the pixels that have data in it."""
    whole = pairs(camera, make_cube(12, 10), make_cube(9, 14, 1))
    gaps = [(frame, cube.copy()) for frame, cube in whole]
    gaps[0][1][:, 3:6] = np.nan
    gaps[1][1][7] = np.nan
    without_rows = (np.delete(whole[0][0], slice(3, 6), 1), np.delete(whole[0][1], slice(3, 6), 1))
    for fit in (
        lambda known: fit_regressions(known, [degree])[0],
        lambda known: fit_relative_regression(known, degree),
    ):
        found, expected, band = (fit(known).matrix for known in (gaps, [without_rows, whole[1]], [without_rows]))
        fresh = root_polynomial(camera.frame(make_cube(8, 8, 2)), degree).T
        expected[:, 7] = band[:, 7]
        np.testing.assert_allclose(fresh @ found, fresh @ expected, rtol=0, atol=1e-6)
