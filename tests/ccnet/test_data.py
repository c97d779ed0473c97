"""CAVE folders and camera responses in their published layouts, the frames made of them, and training patches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.data import Array, Camera, Patches, cave_scenes, read_cave

MakeCube = Callable[..., Array]
WriteCave = Callable[[Path, Array], Path]


# --- CAVE


@pytest.fixture
def scene(tmp_path: Path, make_cube: MakeCube, write_cave: WriteCave) -> Path:
    return write_cave(tmp_path / "cave" / "beads_ms", make_cube(20, 24))


def refusal(scene: Path, words: str) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        read_cave(scene)
    assert str(scene) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scene_is_read_to_16_bits(scene: Path, make_cube: MakeCube) -> None:
    cube = read_cave(scene)
    assert cube.dtype == np.float32
    assert cube.shape == (31, 20, 24)
    np.testing.assert_allclose(cube, make_cube(20, 24), rtol=0, atol=0.5001 / 65535)


def test_scenes_are_found_in_order_at_any_depth(tmp_path: Path, make_cube: MakeCube, write_cave: WriteCave) -> None:
    cube = make_cube(4, 4)
    for name in ("b_ms", "a_ms", "nested/c_ms"):
        write_cave(tmp_path / name, cube)
    (tmp_path / "readme.txt").write_text("not a scene")
    assert cave_scenes(tmp_path) == [tmp_path / "a_ms", tmp_path / "b_ms", tmp_path / "nested" / "c_ms"]


def test_no_folder_and_no_scene(tmp_path: Path) -> None:
    with pytest.raises(CCNetError, match="no such folder, expected one with CAVE scenes"):
        cave_scenes(tmp_path / "nowhere")
    with pytest.raises(CCNetError, match="holds no CAVE scene"):
        cave_scenes(tmp_path)


def test_a_missing_or_doubled_band_is_named(scene: Path) -> None:
    band = scene / "beads_ms_17.png"
    (scene / "copy_17.png").write_bytes(band.read_bytes())
    refusal(scene, "has 2 files for band 17, expected one")
    (scene / "copy_17.png").unlink()
    band.unlink()
    refusal(scene, "has 0 files for band 17, expected one")


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((20, 24, 4), np.uint8), r"uint8 with shape \(20, 24, 4\), expected a 16-bit grey PNG"),  # watercolors
        (np.zeros((20, 24), np.uint8), "uint8 with shape"),
        (np.zeros((20, 24, 3), np.uint16), r"uint16 with shape \(20, 24, 3\)"),
        (np.zeros((20, 25), np.uint16), r"different sizes \[\(20, 24\), \(20, 25\)\]"),
    ],
    ids=["8-bit RGBA", "8-bit grey", "16-bit RGB", "another size"],
)
def test_a_band_of_another_kind_is_refused(scene: Path, pixels: Any, words: str) -> None:
    cv2.imwrite(str(scene / "beads_ms_05.png"), pixels)
    refusal(scene, words)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.95])
def test_half_a_band_is_refused(scene: Path, share: float) -> None:
    band = scene / "beads_ms_31.png"
    whole = band.read_bytes()
    band.write_bytes(whole[: int(share * len(whole))])
    refusal(scene, "not a readable PNG")


# --- camera


def test_a_camera_is_read_and_normalised(camera: Camera, camera_file: Path) -> None:
    assert Camera.read(camera_file).name == "camera"
    np.testing.assert_allclose(Camera.read(camera_file).response, camera.response, rtol=1e-6)
    np.savez(camera_file, filters=camera.response * 7)  # a gain, and no bands
    np.testing.assert_allclose(Camera.read(camera_file).response, camera.response, rtol=1e-6)


GOOD = np.ones((31, 3))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"response": GOOD}, "not a camera response"),
        ({"filters": GOOD.T}, r"filters are \(3, 31\), expected \(31, 3\)"),
        ({"filters": np.ones((33, 3)), "bands": np.arange(400, 721, 10)}, r"filters are \(33, 3\)"),
        ({"filters": GOOD, "bands": np.arange(700, 399, -10)}, "on 400, 410"),
        ({"filters": GOOD, "bands": np.arange(400, 555, 5)}, "on 400, 410"),
        ({"filters": GOOD * np.nan}, "negative or non-finite"),
        ({"filters": GOOD - 2}, "negative or non-finite"),
        ({"filters": GOOD * [1, 0, 1]}, "an all-zero channel"),
        ({"filters": np.full((31, 3), "x")}, "not a camera response"),
        ({"filters": np.array([{}], object)}, "not a camera response"),
    ],
)
def test_a_bad_camera_is_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    path = tmp_path / "camera.npz"
    np.savez(path, **arrays)
    camera_refusal(path, words)


def test_what_is_no_camera_file_is_refused(tmp_path: Path, camera_file: Path) -> None:
    camera_refusal(tmp_path / "nowhere.npz", "no such file, expected a camera response")
    whole = camera_file.read_bytes()
    np.save(tmp_path / "array.npy", GOOD)
    for data in (b"", b"PK\x03\x04", b"text", whole[: len(whole) // 2], (tmp_path / "array.npy").read_bytes()):
        camera_file.write_bytes(data)
        camera_refusal(camera_file, "not a camera response")


def camera_refusal(path: Path, words: str) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        Camera.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_frame_is_eq_2(camera: Camera, make_cube: MakeCube) -> None:
    cube = make_cube(3, 5)
    frame = camera.frame(cube)
    assert frame.dtype == np.float32
    for channel in range(3):
        expected = sum(camera.response[band, channel] * cube[band] for band in range(31))
        np.testing.assert_allclose(frame[channel], expected, rtol=1e-5)


def test_a_flat_spectrum_is_grey_and_nothing_leaves_the_range(camera: Camera) -> None:
    np.testing.assert_allclose(camera.frame(np.full((31, 1, 1), 0.3, np.float32)), 0.3, rtol=1e-5)
    assert camera.frame(np.full((31, 1, 1), 2, np.float32)).max() == 1
    assert camera.frame(np.full((31, 1, 1), -1, np.float32)).min() == 0


# --- patches


def test_a_batch_depends_on_seed_and_step_alone(make_cube: MakeCube, camera: Camera) -> None:
    def patches(seed: int = 3) -> Patches:
        return Patches(cubes=(make_cube(20, 24), make_cube(17, 30, 1)), camera=camera, patch=16, batch=4, seed=seed)

    one = patches()
    one.at(0), one.at(1)  # what was drawn before does not matter
    frames, cubes = one.at(5)
    assert frames.shape == (4, 3, 16, 16)
    assert cubes.shape == (4, 31, 16, 16)
    np.testing.assert_array_equal(patches().at(5)[1], cubes)
    for index in range(4):
        np.testing.assert_array_equal(frames[index], camera.frame(cubes[index]))
    for other in (patches().at(6)[1], patches(seed=4).at(5)[1]):
        assert not np.array_equal(other, cubes)


def test_patches_are_all_eight_views_and_nothing_else(make_cube: MakeCube, camera: Camera) -> None:
    cube = make_cube(8, 8)
    views = {np.rot90(c, turn, axes=(1, 2)).tobytes() for c in (cube, cube[:, :, ::-1]) for turn in range(4)}
    patches = Patches(cubes=(cube,), camera=camera, patch=8, batch=64, seed=0)
    assert {crop.tobytes() for crop in patches.at(0)[1]} == views
    assert len(views) == 8


def test_patches_come_from_everywhere(camera: Camera) -> None:
    place = np.arange(10 * 12, dtype=np.float32).reshape(10, 12)
    cube = np.broadcast_to(place, (len(BANDS_NM), 10, 12)).copy()
    patches = Patches(cubes=(cube,), camera=camera, patch=8, batch=200, seed=0)
    assert {crop[0].min() for crop in patches.at(0)[1]} == {12 * y + x for y in range(3) for x in range(5)}


def test_a_patch_larger_than_a_cube_is_refused(make_cube: MakeCube, camera: Camera) -> None:
    with pytest.raises(CCNetError, match="patch is 32 px, the smallest cube is 20 px"):
        Patches(cubes=(make_cube(64, 64), make_cube(20, 64)), camera=camera, patch=32, batch=1, seed=0)
