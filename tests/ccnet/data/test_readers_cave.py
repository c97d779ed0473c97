"""CAVE scenes that the tests write, complete and damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ccnet.data.camera import Array
from ccnet.data.readers import read_cave

from .damaged import SHARES, MakeCube, Write, cut, refusal


@pytest.fixture(scope="module")
def cube(make_cube: MakeCube) -> Array:
    return make_cube(20, 24)


@pytest.fixture
def scene(tmp_path: Path, cube: Array, write_cave: Write) -> Path:
    return write_cave(tmp_path / "beads_ms", cube)


def test_cave_scene_is_read_with_16_bit_precision(scene: Path, cube: Array) -> None:
    read = read_cave(scene)
    assert read.dtype == np.float32
    assert read.shape == (31, 20, 24)
    np.testing.assert_allclose(read, cube, rtol=0, atol=0.5001 / 65535)


def test_missing_or_duplicate_band_is_refused(scene: Path) -> None:
    band = scene / "beads_ms_17.png"
    (scene / "._beads_ms_17.png").write_bytes(b"what macOS leaves beside a file")
    read_cave(scene)
    (scene / "copy_17.png").write_bytes(band.read_bytes())
    refusal(read_cave, scene, "has 2 files for band 17, expected one")
    (scene / "copy_17.png").unlink()
    band.unlink()
    refusal(read_cave, scene, "has 0 files for band 17, expected one")


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((20, 24, 4), np.uint8), r"uint8 with shape \(20, 24, 4\), .*; leave its scene out \(CAVE's watercol"),
        (np.zeros((20, 24), np.uint8), "uint8 with shape"),
        (np.zeros((20, 24, 3), np.uint16), r"uint16 with shape \(20, 24, 3\)"),
        (np.zeros((20, 25), np.uint16), r"different sizes \[\(20, 24\), \(20, 25\)\]"),
    ],
    ids=["8-bit RGBA", "8-bit grey", "16-bit RGB", "another size"],
)
def test_band_with_another_pixel_format_is_refused(scene: Path, pixels: Any, words: str) -> None:
    cv2.imwrite(str(scene / "beads_ms_05.png"), pixels)
    refusal(read_cave, scene, words)


@SHARES
def test_truncated_band_is_refused(scene: Path, share: float) -> None:
    cut(scene / "beads_ms_31.png", share)
    refusal(read_cave, scene, "not a readable PNG")
