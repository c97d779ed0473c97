"""Varied spectra: smooth changes of all materials at once that keep shapes, shading and the range of reflectance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.data.camera import Array, Camera
from ccnet.data.patches import SceneDataset, TrainingPatches
from ccnet.data.variation import SHIFT_NM, SpectralVariation

MakeCube = Callable[..., Array]
MakeScenes = Callable[..., SceneDataset]


def vary(cube: Array, seed: int) -> Array:
    return SpectralVariation(share=1).vary(cube, np.random.default_rng(seed))


def test_peaks_move_by_the_same_way_in_all_pixels_and_no_further_than_the_largest_shift() -> None:
    bands = np.arange(31, dtype=np.float32)
    peak = np.exp(-np.square((bands - 15) / 3))[:, None, None] * np.float32([[0.2, 0.5], [0.8, 1.0]])
    moved = []
    for seed in range(40):
        places = vary(peak.astype(np.float32), seed).argmax(0)
        assert (places == places[0, 0]).all()
        moved.append(10 * (places[0, 0] - 15))
    assert 0 < np.abs(moved).max() <= SHIFT_NM
    assert min(moved) < 0 < max(moved)


def test_grey_stays_grey_and_brighter_pixels_of_one_material_stay_proportional(make_cube: MakeCube) -> None:
    grey = np.full((31, 4, 4), 0.4, np.float32)
    cube = make_cube(8, 8)
    for seed in range(5):
        np.testing.assert_allclose(vary(grey, seed), 0.4, rtol=1e-5)
        np.testing.assert_allclose(vary(np.float32(0.5) * cube, seed), 0.5 * vary(cube, seed), rtol=1e-4, atol=1e-7)


def test_reflectances_stay_in_their_range(make_cube: MakeCube) -> None:
    cube = make_cube(16, 16)
    for seed in range(10):
        varied = vary(cube, seed)
        assert varied.dtype == np.float32 and varied.shape == cube.shape
        assert varied.min() >= 0 and varied.max() <= cube.max() * (1 + 1e-5)
        assert np.abs(varied - cube).max() > 1e-3


def test_pixels_and_end_bands_without_data_spoil_no_others(make_cube: MakeCube) -> None:
    cube = make_cube(8, 8)
    cube[:, 2, 3], cube[:2] = np.nan, np.nan
    for seed in range(10):
        varied = vary(cube, seed)
        assert np.isnan(varied[:, 2, 3]).all()
        known = ~np.isnan(varied).all(axis=0)
        assert known.sum() == 63
        assert not np.isnan(varied[8:, known]).any()


def test_a_share_of_the_patches_is_varied_and_repeats(
    make_cube: MakeCube, make_scenes: MakeScenes, camera: Camera
) -> None:
    scenes = make_scenes(camera, make_cube(8, 8))
    varied = replace(scenes, variation=SpectralVariation(share=0.3))
    patches = TrainingPatches(dataset=varied, patch=8, batch=200, seed=0)
    frames, cubes = patches.batch_at(0)
    own = {cube.tobytes() for cube in TrainingPatches(dataset=scenes, patch=8, batch=200, seed=0).batch_at(0)[1]}
    assert 40 < sum(cube.tobytes() not in own for cube in cubes) < 80
    np.testing.assert_allclose(frames[5], camera.frame(cubes[5]), atol=1e-6)
    np.testing.assert_array_equal(patches.batch_at(0)[1], cubes)
    np.testing.assert_array_equal(varied.pair(0)[1], scenes.pair(0)[1])


def test_an_impossible_share_and_published_frames_are_refused(
    make_cube: MakeCube, make_scenes: MakeScenes, camera: Camera
) -> None:
    with pytest.raises(CCNetError, match=r"varied spectra is 1\.5, expected 0 to 1"):
        SpectralVariation(share=1.5)
    scenes = make_scenes(camera, make_cube(8, 8))
    published = tuple(replace(scene, read_frame=lambda: make_cube(8, 8)[:3]) for scene in scenes.scenes)
    with pytest.raises(CCNetError, match="need a --camera: published frames show the scene"):
        replace(scenes, scenes=published, cameras=(), variation=SpectralVariation(share=0.5))
