"""Reprojection by Eq. 2, and its residual against the frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ccnet.data.camera import Array, Camera
from ccnet.metrics.reprojection import reproject, residual

MakeCube = Callable[..., Array]


def test_cube_reprojects_to_its_own_frame(make_cube: MakeCube, camera: Camera) -> None:
    cube = make_cube(20, 30)
    np.testing.assert_allclose(reproject(cube, camera.response), camera.frame(cube), atol=1e-6)
    assert np.nanmax(residual(camera.frame(cube), cube, camera.response)) < 1e-5


def test_residual_does_not_see_metamers(make_cube: MakeCube, camera: Camera) -> None:
    """Metamers differ by a spectrum that the response maps to zero."""
    cube = make_cube(20, 30)
    basis, _ = np.linalg.qr(camera.response)
    error = np.random.default_rng(0).normal(0, 0.2, cube.shape)
    error -= np.einsum("bk,ck,chw->bhw", basis, basis, error)
    assert np.abs(error).mean() > 0.1
    assert np.nanmax(residual(camera.frame(cube), cube + error, camera.response)) < 1e-4


def test_residual_is_relative_with_an_offset_for_dark_pixels(camera: Camera) -> None:
    frame = np.array([0.0, 0.08, 0.48], np.float32) * np.ones((3, 1, 1), np.float32)  # flat spectra
    cube = np.array([0.01, 0.09, 0.38], np.float32) * np.ones((31, 1, 1), np.float32)
    np.testing.assert_allclose(residual(frame, cube, camera.response), [[0.5, 0.1, 0.2]], rtol=1e-4)


def test_saturated_pixel_has_no_residual(make_cube: MakeCube, camera: Camera) -> None:
    cube = make_cube(4, 5)
    cube[:, 1, 2] = 3
    found = residual(camera.frame(cube), cube, camera.response)
    assert np.argwhere(np.isnan(found)).tolist() == [[1, 2]]


def test_frame_and_cube_of_different_sizes_are_refused(make_cube: MakeCube, camera: Camera) -> None:
    cube = make_cube(4, 5)
    with pytest.raises(ValueError, match=r"expected \(3, H, W\) for a cube of \(31, 4, 5\)"):
        residual(camera.frame(cube)[:, :3], cube, camera.response)
