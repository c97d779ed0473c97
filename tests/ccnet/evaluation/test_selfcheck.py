"""The residual against the true error, on cubes with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from ccnet.data.camera import Array, Camera
from ccnet.evaluation.selfcheck import compare_residual_and_error, rank_correlation, roc_area, unseen_share

MakeCube = Callable[..., Array]
KEYS = {"score", "unseen"} | {f"{what} {e}" for what in ("rho", "block rho", "auc") for e in ("relative", "absolute")}


def spread(shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 1, shape)


def split(error: npt.NDArray[np.float64], camera: Camera) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Split an error into the part that the camera sees and its null space."""
    basis, _ = np.linalg.qr(camera.response)
    seen = np.einsum("bk,ck,chw->bhw", basis, basis, error)
    return seen, error - seen


def test_error_that_the_camera_sees_is_predicted(make_cube: MakeCube, camera: Camera) -> None:
    cube = make_cube(64, 64)
    flat = np.abs(spread((64, 64))) * 0.1
    result = compare_residual_and_error(camera.frame(cube), cube, cube + flat, camera.response)
    assert result.keys() == KEYS
    assert result["rho absolute"] > 0.9 and result["auc absolute"] > 0.9
    assert result["rho relative"] > 0.5 and result["block rho absolute"] > 0.5
    assert result["score"] == pytest.approx(float(np.mean(flat / (camera.frame(cube) + 0.02))), rel=1e-3)


def test_error_in_the_null_space_is_not_predicted(make_cube: MakeCube, camera: Camera) -> None:
    cube = make_cube(64, 64)
    seen, unseen = split(spread(cube.shape), camera)
    estimate = cube + 1e-3 * seen + 0.1 * unseen * np.abs(spread((64, 64), 1))
    result = compare_residual_and_error(camera.frame(cube), cube, estimate, camera.response)
    assert abs(result["rho absolute"]) < 0.1 and abs(result["auc absolute"] - 0.5) < 0.1
    assert result["unseen"] > 0.999


def test_unseen_share_is_the_share_of_the_null_space(make_cube: MakeCube, camera: Camera) -> None:
    cube = make_cube(8, 8)
    seen, unseen = split(spread(cube.shape), camera)
    assert unseen_share(cube, cube + seen, camera.response) == pytest.approx(0, abs=1e-5)
    assert unseen_share(cube, cube + unseen, camera.response) == pytest.approx(1, abs=1e-5)
    both = cube + seen / np.linalg.norm(seen) + math.sqrt(3) * unseen / np.linalg.norm(unseen)
    assert unseen_share(cube, both, camera.response) == pytest.approx(0.75, abs=1e-5)


def test_saturated_pixels_are_left_out(make_cube: MakeCube, camera: Camera) -> None:
    cube = make_cube(32, 32)
    estimate = cube + np.abs(spread((32, 32))) * 0.1
    expected = compare_residual_and_error(camera.frame(cube), cube, estimate, camera.response)
    bright, wrong = np.concatenate([cube, cube + 2], axis=1), np.concatenate([estimate, cube + 7], axis=1)
    found = compare_residual_and_error(camera.frame(bright), bright, wrong, camera.response)
    for key in KEYS - {"unseen"}:
        assert found[key] == pytest.approx(expected[key], rel=1e-5), key


def test_rank_correlation_of_known_sequences() -> None:
    x = np.arange(50.0)
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1)
    assert rank_correlation(np.array([1, 2, 2, 3]), np.array([1, 3, 2, 4])) == pytest.approx(
        4.5 / math.sqrt(4.5 * 5)
    )  # a tie
    assert math.isnan(rank_correlation(x, np.ones(50)))


def test_roc_area_of_known_orders() -> None:
    error = np.arange(100.0)
    assert roc_area(error, error) == 1 and roc_area(-error, error) == 0
    assert roc_area(np.ones(100), error) == 0.5
    assert math.isnan(roc_area(error, np.ones(100)))


@pytest.mark.parametrize("size", [3, 40])
def test_equal_or_saturated_pixels_give_nan(camera: Camera, size: int) -> None:
    white = np.ones((31, size, size), np.float32)
    result = compare_residual_and_error(camera.frame(white), white, white, camera.response)
    assert result.keys() == KEYS and all(math.isnan(value) for value in result.values())


def ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rank from 1, ties at their mean rank, as version 0.1.0 computed it without scipy."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse.ravel()])


@pytest.mark.parametrize("levels", [None, 7], ids=["distinct", "ties"])
def test_scipy_gives_the_figures_of_version_0_1_0(levels: int | None) -> None:
    a = spread((5000,))
    b = a + spread((5000,), 1)
    if levels:
        a, b = np.round(levels * a), np.round(levels * b)
    deviations = np.array([ranks(a), ranks(b)]) - (len(a) + 1) / 2
    correlation = deviations.prod(axis=0).sum() / np.sqrt(np.square(deviations).sum(axis=1).prod())
    assert rank_correlation(a, b) == pytest.approx(correlation, rel=1e-12)
    worst = b > np.quantile(b, 0.9)
    found = np.count_nonzero(worst)
    area = (ranks(a)[worst].sum() - found * (found + 1) / 2) / (found * np.count_nonzero(~worst))
    assert roc_area(a, b) == pytest.approx(area, rel=1e-12)
