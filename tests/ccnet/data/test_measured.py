"""Measured cameras in training patches: their share, their matrices and the errors of their frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.data import measured
from ccnet.data.camera import Array, Camera
from ccnet.data.measured import MeasuredCameras
from ccnet.data.patches import SceneDataset, TrainingPatches

SWAP = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])

MakeCube = Callable[..., Array]
MakeScenes = Callable[..., SceneDataset]


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the random errors of frames."""
    for name in ("WHITE_ERROR", "NOISE_SHARE", "JPEG_SHARE"):
        monkeypatch.setattr(measured, name, 0)


@pytest.fixture
def swapped(camera: Camera) -> Camera:
    """A camera with red and blue exchanged, and the matrix that undoes it."""
    return Camera(name="swapped", response=np.ascontiguousarray(camera.response[:, ::-1])).behind(SWAP)


@pytest.mark.usefixtures("exact")
def test_matrix_is_behind_the_measured_camera(camera: Camera, swapped: Camera, make_cube: MakeCube) -> None:
    cube = make_cube(8, 8)
    frame = MeasuredCameras(cameras=(swapped,), share=1).frame(cube, np.random.default_rng(0))
    np.testing.assert_allclose(frame, camera.frame(cube), atol=1e-6)


@pytest.mark.usefixtures("exact")
def test_share_of_the_patches_is_measured(
    camera: Camera, swapped: Camera, make_cube: MakeCube, make_scenes: MakeScenes
) -> None:
    unlike = replace(swapped, matrix=None)
    scenes = replace(make_scenes(camera, make_cube(8, 8)), measured=MeasuredCameras(cameras=(unlike,), share=0.25))
    frames, cubes = TrainingPatches(dataset=scenes, patch=8, batch=200, seed=0).batch_at(0)
    own = [np.array_equal(frame, camera.frame(cube)) for frame, cube in zip(frames, cubes, strict=True)]
    other = [np.array_equal(frame, unlike.frame(cube)) for frame, cube in zip(frames, cubes, strict=True)]
    assert sum(own) + sum(other) == 200
    assert 30 < sum(other) < 70
    np.testing.assert_array_equal(scenes.pair(0)[0], camera.frame(make_cube(8, 8)))  # whole scenes stay as they were


def test_errors_are_small_random_and_leave_the_green_of_a_clean_frame(camera: Camera, make_cube: MakeCube) -> None:
    cube = make_cube(16, 16)
    cameras = MeasuredCameras(cameras=(camera,), share=1)
    differences = np.stack(
        [cameras.frame(cube, np.random.default_rng(seed)) - camera.frame(cube) for seed in range(60)]
    )
    clean = np.array([not difference[1].any() for difference in differences])  # without noise and JPEG
    assert 15 < clean.sum() < 40
    assert 0.003 < differences[clean][:, [0, 2]].std() < 0.03
    assert all(difference.any() for difference in differences)
    again = cameras.frame(cube, np.random.default_rng(3)) - camera.frame(cube)
    np.testing.assert_array_equal(again, differences[3])


@pytest.mark.parametrize(("count", "share", "words"), [(0, 0.5, "hold out fewer brands"), (1, 1.5, "expected 0 to 1")])
def test_what_cannot_be_is_refused(camera: Camera, count: int, share: float, words: str) -> None:
    with pytest.raises(CCNetError, match=words):
        MeasuredCameras(cameras=count * (camera,), share=share)
