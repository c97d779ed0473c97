"""Raw files: linear values, white balance as shot, and the matrix of the file or of a known camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.io.cameras.dng import adobe_matrices, dng_matrices, read_tags
from ccnet.runtime.io.cameras.matrices import find_camera
from ccnet.runtime.io.cameras.raw_file import read_raw
from ccnet.runtime.io.srgb import TO_CIE
from tests.runtime.io.cameras.dng_file import write_dng

pytest.importorskip("rawpy", reason="rawpy is not installed: the extra raw")

LEFT, RIGHT = (0.4, 0.6, 0.3), (0.1, 0.3, 0.12)

FORWARD = (4000, 4000, 1642, 2000, 7000, 1000, 500, 500, 7249)
"""A matrix to XYZ in D50, in 1/10000."""


def test_values_are_linear_and_white_balanced(tmp_path: Path) -> None:
    raw = read_raw(write_dng(tmp_path / "frame.dng", LEFT, RIGHT))
    assert raw.dtype == np.uint16 and raw.shape == (48, 64, 3)
    for column, colour in ((10, LEFT), (50, RIGHT)):
        np.testing.assert_allclose(raw[20, column] / 65535, np.divide(colour, (0.5, 1.0, 0.6)), atol=2e-4)


def test_dark_frame_is_not_brightened(tmp_path: Path) -> None:
    raw = read_raw(write_dng(tmp_path / "frame.dng", (0.01, 0.02, 0.01), (0.005, 0.01, 0.006)))
    np.testing.assert_allclose(raw[20, 10] / 65535, (0.02, 0.02, 0.01 / 0.6), atol=2e-4)


def test_matrix_of_the_dng_lies_between_its_lights(tmp_path: Path) -> None:
    path = write_dng(tmp_path / "frame.dng", LEFT, RIGHT)
    raw, matrices = read_raw(path), dng_matrices(read_tags(path))
    assert matrices is not None and [each.light for each in matrices.lights] == ["tungsten", "daylight"]
    assert raw.colour.radiometry.response is None
    assert raw.colour.radiometry.camera == "Test X" and "the DNG's own" in raw.colour.source
    tungsten, found, daylight = (np.array(each) for each in
        (matrices.lights[0].matrix, raw.colour.radiometry.matrix, matrices.lights[1].matrix))  # fmt: skip
    share = (found - tungsten)[0, 0] / (daylight - tungsten)[0, 0]
    assert 0 < share < 1
    np.testing.assert_allclose(found, tungsten + share * (daylight - tungsten), atol=1e-4)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_dng_of_an_srgb_sensor_gives_the_matrix_of_photographs(tmp_path: Path) -> None:
    """A sensor whose channels are linear sRGB in D65: its matrix is that of a photograph, but for Bradford's."""
    xyz_to_srgb = (3.2404542, -1.5371385, -0.4985314, -0.969266, 1.8760108, 0.041556, 0.0556434, -0.2040259, 1.0572252)
    matrices = adobe_matrices("sensor", np.reshape([*xyz_to_srgb, 0, 0, 0], (4, 3)))
    assert matrices is not None
    np.testing.assert_allclose(matrices.lights[0].matrix, TO_CIE, atol=0.05)
    np.testing.assert_allclose(matrices.lights[0].neutral or 0, 1, atol=1e-3)
    assert adobe_matrices("unknown", np.zeros((4, 3))) is None


def test_forward_matrix_is_preferred(tmp_path: Path) -> None:
    forward = ("2i", 9, tuple(part for value in FORWARD for part in (value, 10000)))
    one = {50721: None, 50778: None}
    plain, with_forward = (
        dng_matrices(read_tags(write_dng(tmp_path / "frame.dng", LEFT, RIGHT, changes=one | more)))
        for more in ({}, {50965: forward})
    )
    assert plain and with_forward and len(plain.lights) == 1
    assert plain.lights[0].neutral == with_forward.lights[0].neutral
    assert plain.lights[0].matrix != with_forward.lights[0].matrix
    np.testing.assert_allclose(np.sum(with_forward.lights[0].matrix, axis=1), 1, atol=1e-5)


def test_known_camera_goes_before_the_dng(tmp_path: Path) -> None:
    path = write_dng(tmp_path / "frame.dng", LEFT, RIGHT, "D700", {271: ("s", 0, "NIKON CORPORATION")})
    raw, known = read_raw(path), find_camera("Nikon D700")
    assert (
        known is not None
        and raw.colour.radiometry.camera == "Nikon D700"
        and raw.colour.radiometry.target == "cie_1964_w_gain"
    )
    chosen = known.in_light_of((0.5, 1.0, 0.6))
    assert raw.colour.radiometry.matrix == chosen.matrix
    assert raw.colour.radiometry.response == chosen.response is not None


def test_file_without_a_matrix_is_read_without_one(tmp_path: Path) -> None:
    raw = read_raw(write_dng(tmp_path / "frame.dng", LEFT, RIGHT, changes={50721: None, 50722: None}))
    assert (
        raw.colour.radiometry.matrix is None
        and raw.colour.radiometry.camera == "Test X"
        and raw.colour.source == "none is known"
    )


@pytest.mark.parametrize("kept", [0, 4, 100, 400, 3000])
def test_damaged_files_are_refused(tmp_path: Path, kept: int) -> None:
    path = write_dng(tmp_path / "frame.dng", LEFT, RIGHT)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CCNetError) as caught:
        read_raw(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_size_is_limited_before_the_pixels_are_developed(tmp_path: Path) -> None:
    with pytest.raises(CCNetError, match="64×48 px is too large"):
        read_raw(write_dng(tmp_path / "frame.dng", LEFT, RIGHT), max_pixels=3000)
