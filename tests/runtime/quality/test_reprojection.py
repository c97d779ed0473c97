"""Score, verdict and map of a cube against its frame, strip by strip."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ccnet.contract import CCNetError, Manifest
from ccnet.metrics.reprojection import residual
from ccnet.runtime.quality.reprojection import MOST_NEGATIVE, MOST_RESIDUAL, ReprojectionCheck
from tests.ccnet.metrics.smooth_scene import RESPONSE, response, scene

Array = npt.NDArray[Any]

BASE = Manifest(config={}, weights_sha256="5a" * 32, context_size=3, input="float32", tools={})
MANIFEST = dataclasses.replace(BASE, camera={"name": "three bumps", "response": RESPONSE.tolist()})


def frame_of(cube: Array, curves: Array = RESPONSE) -> Array:
    return np.einsum("bc,bhw->hwc", curves, cube).clip(0, 1).astype(np.float32)


def judged(frame: Array, cube: Array, step: int = 1000) -> ReprojectionCheck:
    check = ReprojectionCheck(frame, MANIFEST)
    for top in range(0, cube.shape[1], step):
        check.write(top, cube[:, top : top + step])
    return check


def test_parts_give_the_result_of_the_whole() -> None:
    cube = scene(90, 50)
    frame = frame_of(scene(90, 50)[:, ::-1])
    whole, parts = judged(frame, cube), ReprojectionCheck(frame, MANIFEST)
    for top, bottom in ((0, 70), (70, 90)):
        for left, right in ((0, 13), (13, 50)):
            parts.write(top, cube[:, top:bottom, left:right], left)
    assert parts.score == pytest.approx(whole.score) and parts.negative == pytest.approx(whole.negative)
    np.testing.assert_allclose(parts.residuals.cube, whole.residuals.cube, rtol=1e-5)


def test_cube_that_explains_its_frame_scores_zero() -> None:
    cube = scene(40, 50)
    check = judged(frame_of(cube), cube)
    assert check.score < 1e-5 and check.negative == 0
    perfect = "mean residual 0.0%, 0.0% of the cube is negative; as on frames of the weights' camera"
    assert check.verdict().endswith(perfect)


def warned(check: ReprojectionCheck) -> bool:
    return "WARNING" in check.verdict() and "three bumps" in check.verdict() and "--input-space" in check.verdict()


def test_frame_in_another_encoding_than_the_cubes_is_flagged() -> None:
    cube = scene(40, 50)
    check = judged(frame_of(cube) ** np.float32(1 / 2.2), cube)
    assert check.score > 2 * MOST_RESIDUAL and warned(check)


def test_frame_of_another_camera_than_the_cubes_is_flagged() -> None:
    cube = scene(40, 50)
    check = judged(frame_of(cube, response(620, 530, 460)), cube)
    assert check.score > MOST_RESIDUAL and warned(check)


def test_cube_with_much_negative_light_is_flagged() -> None:
    ripple = np.cos(np.pi * np.arange(31))
    basis, _ = np.linalg.qr(RESPONSE)
    ripple -= basis @ (basis.T @ ripple)  # what the camera does not see
    cube = (0.3 + 0.5 * ripple[:, None, None] * np.ones((1, 8, 8))).astype(np.float32)
    check = judged(frame_of(cube), cube)
    assert check.score < 1e-4 and check.negative > MOST_NEGATIVE and warned(check)
    assert check.negative == pytest.approx(-cube[cube < 0].sum() / np.abs(cube).sum(), rel=1e-5)


def test_saturated_pixels_do_not_count() -> None:
    cube = scene(40, 50)
    frame = frame_of(cube)
    wrong = cube.copy()
    frame[10:20], wrong[:, 10:20] = 1, 5
    check = judged(frame, wrong)
    assert check.score == pytest.approx(judged(frame[20:], cube[:, 20:]).score, abs=1e-6)
    assert np.isnan(check.residuals.cube[0, 10:20]).all() and np.isfinite(check.residuals.cube[0, 20:]).all()


def test_white_frame_is_not_judged() -> None:
    check = judged(np.ones((4, 4, 3), np.float32), np.ones((31, 4, 4), np.float32))
    assert math.isnan(check.score) and "not judged" in check.verdict()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("size", [(150, 7), (1100, 3)])
def test_check_by_strips_equals_check_of_the_whole_cube(dtype: str, size: tuple[int, int]) -> None:
    cube = scene(*size)
    frame = frame_of(cube)
    if dtype != "float32":
        frame = np.round(frame * np.iinfo(dtype).max).astype(dtype)
    cube *= np.random.default_rng(1).normal(1, 0.1, size).astype(np.float32)
    strips, whole = judged(frame, cube, 37), judged(frame, cube)
    assert strips.score == pytest.approx(whole.score, rel=1e-6)
    assert strips.negative == pytest.approx(whole.negative, abs=1e-9)
    np.testing.assert_array_equal(strips.residuals.cube, whole.residuals.cube)
    scale = 1 if dtype == "float32" else np.iinfo(dtype).max
    expected = residual(frame.transpose(2, 0, 1) / np.float32(scale), cube, RESPONSE)
    assert whole.score == pytest.approx(float(np.nanmean(expected)), rel=1e-5)
    step = math.ceil(max(size) / 1024)
    np.testing.assert_allclose(whole.residuals.cube[0], expected[::step, ::step], rtol=1e-4)


def test_artifacts_without_a_camera_are_refused() -> None:
    with pytest.raises(CCNetError, match="do not say which camera"):
        ReprojectionCheck(np.zeros((4, 4, 3), np.float32), BASE)
