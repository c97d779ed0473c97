"""Does the residual predict the error? Known answers on cubes made for it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from ccnet.data.camera import Array, Camera
from ccnet.evaluation.selfcheck import auc, prediction, spearman, unseen_share

MakeCube = Callable[..., Array]
KEYS = {"score", "unseen"} | {f"{what} {e}" for what in ("rho", "block rho", "auc") for e in ("relative", "absolute")}


def spread(shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 1, shape)


def split(error: npt.NDArray[np.float64], camera: Camera) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What the camera sees of an error, and what it does not."""
    basis, _ = np.linalg.qr(camera.response)
    seen = np.einsum("bk,ck,chw->bhw", basis, basis, error)
    return seen, error - seen


def test_an_error_that_the_camera_sees_is_predicted(make_cube: MakeCube, camera: Camera) -> None:
    cube = make_cube(64, 64)
    flat = np.abs(spread((64, 64))) * 0.1
    result = prediction(camera.frame(cube), cube, cube + flat, camera.response)
    assert result.keys() == KEYS
    assert result["rho absolute"] > 0.9 and result["auc absolute"] > 0.9
    assert result["rho relative"] > 0.5 and result["block rho absolute"] > 0.5
    assert result["score"] == pytest.approx(float(np.mean(flat / (camera.frame(cube) + 0.02))), rel=1e-3)


def test_an_error_that_it_does_not_see_is_not(make_cube: MakeCube, camera: Camera) -> None:
    cube = make_cube(64, 64)
    seen, unseen = split(spread(cube.shape), camera)
    estimate = cube + 1e-3 * seen + 0.1 * unseen * np.abs(spread((64, 64), 1))
    result = prediction(camera.frame(cube), cube, estimate, camera.response)
    assert abs(result["rho absolute"]) < 0.1 and abs(result["auc absolute"] - 0.5) < 0.1
    assert result["unseen"] > 0.999


def test_the_share_that_no_check_can_see(make_cube: MakeCube, camera: Camera) -> None:
    cube = make_cube(8, 8)
    seen, unseen = split(spread(cube.shape), camera)
    assert unseen_share(cube, cube + seen, camera.response) == pytest.approx(0, abs=1e-5)
    assert unseen_share(cube, cube + unseen, camera.response) == pytest.approx(1, abs=1e-5)
    both = cube + seen / np.linalg.norm(seen) + math.sqrt(3) * unseen / np.linalg.norm(unseen)
    assert unseen_share(cube, both, camera.response) == pytest.approx(0.75, abs=1e-5)


def test_saturated_pixels_are_left_out(make_cube: MakeCube, camera: Camera) -> None:
    cube = make_cube(32, 32)
    estimate = cube + np.abs(spread((32, 32))) * 0.1
    expected = prediction(camera.frame(cube), cube, estimate, camera.response)
    bright, wrong = np.concatenate([cube, cube + 2], axis=1), np.concatenate([estimate, cube + 7], axis=1)
    found = prediction(camera.frame(bright), bright, wrong, camera.response)
    for key in KEYS - {"unseen"}:
        assert found[key] == pytest.approx(expected[key], rel=1e-5), key


def test_rank_correlation() -> None:
    x = np.arange(50.0)
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)
    assert spearman(np.array([1, 2, 2, 3]), np.array([1, 3, 2, 4])) == pytest.approx(4.5 / math.sqrt(4.5 * 5))  # a tie
    assert math.isnan(spearman(x, np.ones(50)))


def test_area_under_the_curve() -> None:
    error = np.arange(100.0)
    assert auc(error, error) == 1 and auc(-error, error) == 0
    assert auc(np.ones(100), error) == 0.5
    assert math.isnan(auc(error, np.ones(100)))


@pytest.mark.parametrize("size", [3, 40])
def test_nothing_to_rank_is_nan_and_no_crash(camera: Camera, size: int) -> None:
    white = np.ones((31, size, size), np.float32)
    result = prediction(camera.frame(white), white, white, camera.response)
    assert result.keys() == KEYS and all(math.isnan(value) for value in result.values())
