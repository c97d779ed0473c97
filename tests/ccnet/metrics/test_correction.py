"""The correction of a cube by its frame, against the formula, and what it must not change."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ccnet.metrics import mrae, psnr
from ccnet.metrics.correction import CORRELATION, FLOOR, LEAST_NOISE, NOISE_SHARE, FrameCorrection, corrected
from ccnet.metrics.reprojection import residual
from tests.ccnet.metrics.smooth_scene import RESPONSE, response, scene

Array = npt.NDArray[Any]


def frame_of(cube: Array) -> Array:
    """The frame (3, H, W) by Eq. 2."""
    return np.einsum("bc,bhw->chw", RESPONSE, cube).clip(0, 1).astype(np.float32)


def estimate_of(cube: Array, seed: int = 1) -> Array:
    """The cube with errors of about 10 %, smooth over the bands."""
    waves = np.random.default_rng(seed).normal(0, 0.1, (4, *cube.shape[1:]))
    shapes = np.cos(np.pi * np.arange(4)[:, None] * np.linspace(0, 1, 31))
    return (cube * (1 + np.einsum("kb,khw->bhw", shapes, waves))).astype(np.float32)


def test_each_pixel_is_the_solution_of_its_linear_system() -> None:
    truth = scene(3, 4)
    frame, estimate = frame_of(truth), estimate_of(truth)
    estimate[:4] -= 0.1  # negative values have the uncertainty of black ones
    found, s = corrected(estimate, frame, RESPONSE), RESPONSE.astype(np.float64)
    for y in range(3):
        for x in range(4):
            spectrum, pixel = estimate[:, y, x].astype(np.float64), frame[:, y, x].astype(np.float64)
            d = np.diag(np.maximum(spectrum, 0) + FLOOR * pixel.mean())
            v = d @ CORRELATION ** np.abs(np.subtract.outer(np.arange(31), np.arange(31))) @ d
            system = s.T @ v @ s + (NOISE_SHARE * pixel.mean() + LEAST_NOISE) ** 2 * np.eye(3)
            expected = spectrum + v @ s @ np.linalg.solve(system, pixel - s.T @ spectrum)
            np.testing.assert_allclose(found[:, y, x], expected, atol=2e-6)


def test_the_camera_sees_the_frame_and_the_cube_is_closer_to_the_truth() -> None:
    truth = scene(20, 30)
    frame, estimate = frame_of(truth), estimate_of(truth)
    found = corrected(estimate, frame, RESPONSE)
    assert residual(frame, found, RESPONSE).mean() < 0.02 * residual(frame, estimate, RESPONSE).mean()
    assert mrae(truth, found) < 0.9 * mrae(truth, estimate) and psnr(truth, found) > psnr(truth, estimate)


def test_a_cube_that_explains_its_frame_stays() -> None:
    truth = scene(20, 30)
    np.testing.assert_allclose(corrected(truth, frame_of(truth), RESPONSE), truth, atol=1e-6)


def test_parts_of_any_shape_give_the_result_of_the_whole() -> None:
    truth = scene(90, 50)
    frame, estimate = frame_of(truth), estimate_of(truth)
    whole, parts = corrected(estimate, frame, RESPONSE), estimate.copy()
    correction = FrameCorrection(frame.transpose(1, 2, 0), RESPONSE)
    for rows in (slice(0, 70), slice(70, 90)):
        for columns in (slice(0, 13), slice(13, 50)):
            correction.write(rows.start, parts[:, rows, columns], columns.start)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


@pytest.mark.parametrize("light", [1e-4, 1e-2, 1.0])
def test_dark_pixels_and_channels_that_are_nearly_alike_have_accurate_solutions(light: float) -> None:
    alike = response(545, 540, 450)
    truth = scene(4, 5) * light
    frame = np.einsum("bc,bhw->chw", alike, truth).astype(np.float32)
    estimate = estimate_of(truth).astype(np.float32)
    found, s = corrected(estimate, frame, alike).reshape(31, -1), alike.astype(np.float64)
    distances = np.abs(np.subtract.outer(np.arange(31), np.arange(31)))
    for index, (spectrum, pixel) in enumerate(zip(estimate.reshape(31, -1).T, frame.reshape(3, -1).T, strict=True)):
        d = np.diag(np.maximum(spectrum, 0).astype(np.float64) + FLOOR * pixel.mean())
        seen = d @ CORRELATION**distances @ d @ s
        system = s.T @ seen + (NOISE_SHARE * pixel.mean() + LEAST_NOISE) ** 2 * np.eye(3)
        expected = spectrum + seen @ np.linalg.solve(system, pixel - s.T @ spectrum)
        np.testing.assert_allclose(found[:, index], expected, atol=2e-5 * light)


@pytest.mark.parametrize(("dtype", "most"), [(np.uint8, 255), (np.uint16, 65535)])
def test_integer_frames_count_as_their_values_in_0_to_1(dtype: Any, most: int) -> None:
    truth = scene(20, 30)
    estimate, frame = estimate_of(truth), np.rint(frame_of(truth) * most).astype(dtype)
    found = estimate.copy()
    FrameCorrection(frame.transpose(1, 2, 0), RESPONSE).write(0, found)
    expected = corrected(estimate, frame.astype(np.float32) / most, RESPONSE)
    np.testing.assert_allclose(found, expected, atol=0.01 if most == 255 else 1e-5)  # 8 bits are trusted less
    assert most != 255 or np.abs(found - expected).max() > 1e-5


def test_saturated_pixels_stay() -> None:
    truth = scene(20, 30)
    frame, estimate = frame_of(truth), estimate_of(truth)
    frame[1, 4, 5] = 1.0
    found = corrected(estimate, frame, RESPONSE)
    np.testing.assert_array_equal(found[:, 4, 5], estimate[:, 4, 5])
    assert (found[:, 4, 6] != estimate[:, 4, 6]).any()


def test_pixels_that_were_clipped_before_the_matrix_stay() -> None:
    truth = scene(20, 30)
    sensor, estimate = frame_of(truth) * np.float32(0.6), estimate_of(truth)
    matrix = np.array([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [-0.4, -0.4, 1.8]])
    sensor[:, 4, 5] = 1.0, 0.5, 0.25
    sensor[:, 6, 7] = 0.5, 0.8, 0.5
    sensor[:, 8, 9] = 0.5, 0.4, 0.15  # the matrix makes its blue negative
    frame = np.clip(np.einsum("dc,chw->dhw", matrix, sensor), 0, 1).astype(np.float32).transpose(1, 2, 0)
    found = estimate.copy()
    FrameCorrection(frame, RESPONSE @ matrix.T.astype(np.float32), matrix, (1.0, 0.8, 1.0)).write(0, found)
    for y, x in ((4, 5), (6, 7), (8, 9)):
        np.testing.assert_array_equal(found[:, y, x], estimate[:, y, x])
    changed = (found != estimate).any(axis=0)
    assert changed.sum() > 0.9 * changed.size


def test_a_black_frame_gives_finite_values() -> None:
    estimate = np.full((31, 2, 2), 0.01, np.float32)
    found = corrected(estimate, np.zeros((3, 2, 2), np.float32), RESPONSE)
    assert np.isfinite(found).all() and np.abs(found).max() <= 0.01
