"""Cubes in their published layouts, written by the tests themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ccnet.camera import Array
from ccnet.contract import CCNetError
from ccnet.datasets import cave_scenes, read_cave

MakeCube = Callable[..., Array]
WriteCave = Callable[[Path, Array], Path]


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
