"""Measured reflectances in place of a patch's materials: regions, shading, shares and refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.data.camera import Array, Camera
from ccnet.data.materials import Materials
from ccnet.data.patches import SceneDataset, TrainingPatches

MakeCube = Callable[..., Array]
MakeScenes = Callable[..., SceneDataset]


@pytest.fixture(scope="module")
def surfaces() -> Array:
    """Two reflectances, a rising and a falling one: their mixtures are straight lines over the bands."""
    ramp = np.linspace(0.1, 0.9, 31, dtype=np.float32)
    return np.stack([ramp, ramp[::-1]])


def changed(before: Array, after: Array) -> np.ndarray:
    return np.abs(after - before).max(0) > 1e-6


def test_regions_get_mixtures_of_the_surfaces_under_their_shading(make_cube: MakeCube, surfaces: Array) -> None:
    cube, shares = 0.4 * make_cube(24, 32), []
    for seed in range(20):
        painted = Materials(surfaces=surfaces, share=1).repaint(cube, np.random.default_rng(seed))
        new = changed(cube, painted)
        shares.append(new.mean())
        np.testing.assert_allclose(painted.mean(0), cube.mean(0), rtol=1e-5)
        np.testing.assert_allclose(np.diff(painted[:, new], n=2, axis=0), 0, atol=1e-6)
        assert painted.dtype == np.float32
    assert 0.3 < np.mean(shares) < 0.7


def test_no_band_passes_one(make_cube: MakeCube, surfaces: Array) -> None:
    bright = np.maximum(make_cube(24, 32), np.float32(0.9))
    for seed in range(10):
        painted = Materials(surfaces=surfaces, share=1).repaint(bright, np.random.default_rng(seed))
        assert painted.max() <= max(1, bright.max()) + 1e-6


def test_gaps_stay_gaps(make_cube: MakeCube, surfaces: Array) -> None:
    cube = make_cube(16, 16)
    cube[3:6, :, 2:9] = np.nan
    painted = Materials(surfaces=surfaces, share=1).repaint(cube, np.random.default_rng(0))
    np.testing.assert_array_equal(np.isnan(painted), np.isnan(cube))


def test_share_of_the_patches_is_repainted_and_repeats(
    make_cube: MakeCube, make_scenes: MakeScenes, camera: Camera, surfaces: Array
) -> None:
    plain = make_scenes(camera, make_cube(8, 8))
    repainted = replace(plain, materials=Materials(surfaces=surfaces, share=0.3))
    patches = TrainingPatches(dataset=repainted, patch=8, batch=200, seed=0)
    frames, cubes = patches.batch_at(0)
    own = {cube.tobytes() for cube in TrainingPatches(dataset=plain, patch=8, batch=200, seed=0).batch_at(0)[1]}
    assert 30 < sum(cube.tobytes() not in own for cube in cubes) < 70  # a few are divided, but keep all materials
    np.testing.assert_allclose(frames[5], camera.frame(cubes[5]), atol=1e-6)
    np.testing.assert_array_equal(patches.batch_at(0)[1], cubes)
    np.testing.assert_array_equal(repainted.pair(0)[1], plain.pair(0)[1])


@pytest.mark.parametrize(
    ("values", "share", "words"),
    [
        (np.ones((2, 30)), 0.5, r"surfaces are \(2, 30\), expected reflectances \(N, 31\)"),
        (np.ones((0, 31)), 0.5, r"surfaces are \(0, 31\)"),
        (-np.ones((2, 31)), 0.5, "negative or all-black"),
        (np.zeros((2, 31)), 0.5, "negative or all-black"),
        (np.ones((2, 31)), 1.5, "share of repainted patches is 1.5, expected 0 to 1"),
    ],
)
def test_impossible_surfaces_are_refused(values: Array, share: float, words: str) -> None:
    with pytest.raises(CCNetError, match=words):
        Materials(surfaces=values.astype(np.float32), share=share)


def test_surfaces_need_a_camera(make_cube: MakeCube, make_scenes: MakeScenes, camera: Camera, surfaces: Array) -> None:
    scenes = make_scenes(camera, make_cube(8, 8))
    published = tuple(replace(scene, read_frame=lambda: make_cube(8, 8)[:3]) for scene in scenes.scenes)
    with pytest.raises(CCNetError, match="need a --camera: published frames show the scene"):
        replace(scenes, scenes=published, cameras=(), materials=Materials(surfaces=surfaces, share=0.5))
