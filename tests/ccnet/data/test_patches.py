"""Batches of training patches: their order, orientation and position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.data.camera import Array, Camera
from ccnet.data.patches import SceneDataset, TrainingPatches

MakeCube = Callable[..., Array]
MakeScenes = Callable[..., SceneDataset]


def test_batch_depends_on_seed_and_step_only(make_cube: MakeCube, camera: Camera, make_scenes: MakeScenes) -> None:
    def patches(seed: int = 3) -> TrainingPatches:
        return TrainingPatches(
            dataset=make_scenes(camera, *(make_cube(20, 24), make_cube(17, 30, 1))), patch=16, batch=4, seed=seed
        )

    one = patches()
    one.batch_at(0), one.batch_at(1)  # what was drawn before does not matter
    frames, cubes = one.batch_at(5)
    assert frames.shape == (4, 3, 16, 16)
    assert cubes.shape == (4, 31, 16, 16)
    np.testing.assert_array_equal(patches().batch_at(5)[1], cubes)
    for index in range(4):
        np.testing.assert_array_equal(frames[index], camera.frame(cubes[index]))
    for other in (patches().batch_at(6)[1], patches(seed=4).batch_at(5)[1]):
        assert not np.array_equal(other, cubes)


def test_patches_have_all_eight_orientations(make_cube: MakeCube, camera: Camera, make_scenes: MakeScenes) -> None:
    cube = make_cube(8, 8)
    views = {np.rot90(c, turn, axes=(1, 2)).tobytes() for c in (cube, cube[:, :, ::-1]) for turn in range(4)}
    patches = TrainingPatches(dataset=make_scenes(camera, *(cube,)), patch=8, batch=64, seed=0)
    assert {crop.tobytes() for crop in patches.batch_at(0)[1]} == views
    assert len(views) == 8


def test_patches_come_from_every_position(camera: Camera, make_scenes: MakeScenes) -> None:
    place = np.arange(10 * 12, dtype=np.float32).reshape(10, 12)
    cube = np.broadcast_to(place, (len(BANDS_NM), 10, 12)).copy()
    patches = TrainingPatches(dataset=make_scenes(camera, *(cube,)), patch=8, batch=200, seed=0)
    assert {crop[0].min() for crop in patches.batch_at(0)[1]} == {12 * y + x for y in range(3) for x in range(5)}


def test_brightness_scales_frame_and_cube_together(
    make_cube: MakeCube, camera: Camera, make_scenes: MakeScenes
) -> None:
    scenes = make_scenes(camera, make_cube(16, 16))
    frames, cubes = TrainingPatches(dataset=scenes, patch=16, batch=6, seed=0).batch_at(0)
    dim = TrainingPatches(dataset=replace(scenes, brightness=(0.1, 0.5)), patch=16, batch=6, seed=0)
    dim_frames, dim_cubes = dim.batch_at(0)
    factors = dim_cubes.max((1, 2, 3)) / cubes.max((1, 2, 3))
    assert (factors >= 0.0999).all() and (factors <= 0.501).all() and factors.std() > 0.01
    np.testing.assert_allclose(dim_cubes, cubes * factors[:, None, None, None], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(dim_frames, frames * factors[:, None, None, None], rtol=1e-4, atol=1e-6)
    whole = replace(scenes, brightness=(0.1, 0.5)).pair(0)
    np.testing.assert_array_equal(whole[1], scenes.pair(0)[1])
    with pytest.raises(CCNetError, match=r"brightness is \(0.5, 0.1\), expected two factors"):
        replace(scenes, brightness=(0.5, 0.1))


def test_patch_larger_than_a_cube_is_refused(make_cube: MakeCube, camera: Camera, make_scenes: MakeScenes) -> None:
    with pytest.raises(CCNetError, match="patch is 32 px, 1 is 64×20 px"):
        TrainingPatches(
            dataset=make_scenes(camera, make_cube(64, 64), make_cube(20, 64)), patch=32, batch=9, seed=0
        ).batch_at(0)
