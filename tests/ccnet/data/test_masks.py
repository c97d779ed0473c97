"""Pixels and bands without data: ENVI's data ignore value and bbl, which neither train nor count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnet.contract import BANDS_NM
from ccnet.contract.gaps import describe_gaps, known_values
from ccnet.data.camera import Camera
from ccnet.data.datasets import open_source
from ccnet.data.masks import fill_for_camera, known_mean
from ccnet.data.patches import SceneDataset, TrainingPatches
from ccnet.data.readers import read_envi_cube
from ccnet.data.simulate import simulate

from .damaged import MakeCube, Write, refusal

MakeScenes = Callable[..., SceneDataset]


@pytest.mark.parametrize("value", [0, -9999, 1e34, "nan", "-1.0e+34"])
@pytest.mark.parametrize("interleave", ["bsq", "bip"])
def test_pixels_with_the_ignored_value_have_no_data(
    tmp_path: Path,
    make_cube: MakeCube,
    write_envi: Write,
    caplog: pytest.LogCaptureFixture,
    value: Any,
    interleave: str,
) -> None:
    cube = make_cube(20, 24) * 0.9 + np.float32(0.05)
    stored = cube.copy()
    stored[:, :5] = float(value)
    stored[3, 7, 7] = float(value)  # one value is enough
    path = write_envi(tmp_path / "c.hdr", stored, {"data ignore value": value}, interleave=interleave)
    read = read_envi_cube(path)
    known = np.ones((20, 24), bool)
    known[:5], known[7, 7] = False, False
    np.testing.assert_array_equal(read[:, known], cube[:, known])
    assert np.isnan(read[:, ~known]).all()
    read_envi_cube(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 121 of 480 pixels have no data by its header: they neither train nor count"
    ]


def test_the_ignored_value_is_a_stored_one_before_the_scale(
    tmp_path: Path, make_cube: MakeCube, write_envi: Write
) -> None:
    stored = np.round(make_cube(20, 24) * 9000 + 500).astype(np.int16)
    stored[:, 3] = -1
    path = write_envi(tmp_path / "c.hdr", stored, {"reflectance scale factor": 10000, "data ignore value": -1})
    assert describe_gaps(read_envi_cube(path)) == {"pixels": 24, "bands": []}


@pytest.mark.parametrize("bad", [[0], [30], [4, 5, 6], [0, 15, 30]])
def test_bad_bands_have_no_data(
    tmp_path: Path, make_cube: MakeCube, write_envi: Write, caplog: pytest.LogCaptureFixture, bad: list[int]
) -> None:
    cube, good = make_cube(20, 24) * 0.9 + np.float32(0.05), np.setdiff1d(range(31), bad)
    stored = cube.copy()
    stored[bad] = -7  # the values of a bad band may be anything, the ignored value included
    path = write_envi(
        tmp_path / "c.hdr", stored, {"bbl": [int(i not in bad) for i in range(31)], "data ignore value": -7}
    )
    read = read_envi_cube(path)
    np.testing.assert_array_equal(read[good], cube[good])
    assert np.isnan(read[bad]).all()
    assert describe_gaps(read) == {"pixels": 0, "bands": [BANDS_NM[i] for i in bad]}
    assert f"{len(bad)} of 31 bands ({', '.join(str(BANDS_NM[i]) for i in bad)} nm)" in caplog.text


def test_cube_without_any_data_is_refused(tmp_path: Path, make_cube: MakeCube, write_envi: Write) -> None:
    refusal(read_envi_cube, write_envi(tmp_path / "a.hdr", make_cube(16, 16), {"bbl": [0] * 31}), "no pixel has data")
    black = np.zeros((31, 16, 16), np.float32)
    refusal(read_envi_cube, write_envi(tmp_path / "b.hdr", black, {"data ignore value": 0}), "no pixel has data")


def test_other_nan_values_are_refused_still(tmp_path: Path, make_cube: MakeCube, write_envi: Write) -> None:
    cube = make_cube(16, 16)
    cube[:, 0, 0], cube[:, 1, 1] = -1, np.nan
    refusal(read_envi_cube, write_envi(tmp_path / "c.hdr", cube, {"data ignore value": -1}), "NaN or infinite")


def test_simulated_frames_are_black_without_data(
    tmp_path: Path, make_cube: MakeCube, write_envi: Write, camera: Camera
) -> None:
    cube = make_cube(20, 24)
    cube[:, :5] = -1
    write_envi(tmp_path / "c.hdr", cube, {"data ignore value": -1, "bbl": [0] + 30 * [1]})
    scenes = SceneDataset(scenes=open_source(f"envi:{tmp_path}", "train"), cameras=(camera,))
    frame, truth = scenes.pair(0)
    assert np.isfinite(frame).all()
    assert not frame[:, :5].any() and (frame[:, 5:] > 0).all()
    assert known_values(truth) is not None
    assert len(list(simulate(scenes.scenes, (camera,), scenes.imaging, tmp_path / "frames", 0))) == 1


def test_a_bad_band_is_interpolated_for_the_camera(make_cube: MakeCube) -> None:
    ramp = np.broadcast_to(np.linspace(0.1, 0.7, 31, dtype=np.float32)[:, None, None], (31, 4, 4)).copy()
    gaps = ramp.copy()
    gaps[[7, 8, 20]], gaps[30] = np.nan, np.nan
    filled = fill_for_camera(gaps)
    np.testing.assert_allclose(filled[:30], ramp[:30], rtol=1e-5)
    np.testing.assert_array_equal(filled[30], filled[29])
    assert fill_for_camera(ramp) is ramp


def test_every_patch_has_data(make_cube: MakeCube, camera: Camera, make_scenes: MakeScenes) -> None:
    cube = make_cube(64, 64)
    cube[:, :60] = np.nan
    cube[:, :, :60] = np.nan
    patches = TrainingPatches(dataset=make_scenes(camera, cube), patch=16, batch=50, seed=0)
    frames, cubes = patches.batch_at(0)
    assert np.isfinite(frames).all()
    assert (~np.isnan(cubes)).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(patches.batch_at(0)[1], cubes)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_mean_of_known_values_is_that_of_the_values_without_nan(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((5, 7)) < share, np.nan, rng.random((5, 7)))
    expected = [row[~np.isnan(row)].mean() if (~np.isnan(row)).any() else np.nan for row in values]
    np.testing.assert_allclose(known_mean(values, 1), expected)
