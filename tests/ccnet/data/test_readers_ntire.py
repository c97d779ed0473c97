"""NTIRE's cubes and frames, written by the tests themselves, complete and damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from ccnet.contract import BANDS_NM
from ccnet.data.camera import Array
from ccnet.data.readers import MAX_PIXELS, read_ntire_cube, read_ntire_frame

from .damaged import SHARES, MakeCube, Write, cut, refusal


@pytest.fixture(scope="module")
def cube(make_cube: MakeCube) -> Array:
    return make_cube(20, 24)


@pytest.fixture
def mat73(tmp_path: Path, cube: Array, write_mat73: Write) -> Path:
    return write_mat73(tmp_path / "ARAD_1K_0001.mat", cube)


@pytest.mark.parametrize("version", ["write_mat73", "write_mat5"])
def test_cube_of_either_matlab_version_is_read_upright(
    version: str, request: pytest.FixtureRequest, tmp_path: Path, cube: Array
) -> None:
    read = read_ntire_cube(request.getfixturevalue(version)(tmp_path / "c.mat", cube))
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, cube)


def test_uncompressed_float32_cube_without_bands_is_read(tmp_path: Path, cube: Array) -> None:
    path = tmp_path / "c.mat"
    with h5py.File(path, "w") as file:
        file["cube"] = cube.transpose(0, 2, 1)
    np.testing.assert_array_equal(read_ntire_cube(path), cube)
    scipy.io.savemat(path, {"cube": cube.transpose(1, 2, 0)})
    np.testing.assert_array_equal(read_ntire_cube(path), cube)


def test_huge_bands_array_is_refused_unread(mat73: Path) -> None:
    with h5py.File(mat73, "r+") as file:
        del file["bands"]
        file.create_dataset("bands", (10**12,), np.float64)  # the file holds none of these values
    refusal(read_ntire_cube, mat73, "other wavelengths")


def test_bands_array_may_be_a_row_or_a_column(mat73: Path, cube: Array) -> None:
    with h5py.File(mat73, "r+") as file:
        del file["bands"]
        file["bands"] = np.array([BANDS_NM], np.int32)
    np.testing.assert_array_equal(read_ntire_cube(mat73), cube)


BANDS = pytest.mark.parametrize(
    ("bands", "words"),
    [
        (BANDS_NM[::-1], "wrong wavelength order, expected 400, 410, … 700 nm in ascending order; sort the bands"),
        (range(31), "other wavelengths"),
        (BANDS_NM[:30], "other wavelengths"),
        ([*BANDS_NM[:30], np.nan], "other wavelengths"),
    ],
    ids=["descending", "indices", "30", "NaN"],
)


@BANDS
@pytest.mark.parametrize("version", ["write_mat73", "write_mat5"])
def test_other_wavelengths_are_refused(
    version: str, bands: Any, words: str, request: pytest.FixtureRequest, tmp_path: Path, cube: Array
) -> None:
    refusal(read_ntire_cube, request.getfixturevalue(version)(tmp_path / "c.mat", cube, bands), words)


@pytest.mark.parametrize("version", ["write_mat73", "write_mat5"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "NaN or infinite"),
        (-np.inf, "NaN or infinite"),
        (1.1, "to 1.1, expected reflectance in"),
        (-0.1, "from -0.1 to"),
        (4095, "values from .* to 4095, .* scale or clip them"),
    ],
)
def test_values_outside_reflectance_range_are_refused(
    version: str, value: float, words: str, request: pytest.FixtureRequest, tmp_path: Path, cube: Array
) -> None:
    spoilt = cube.copy()
    spoilt[7, 3, 5] = value
    refusal(read_ntire_cube, request.getfixturevalue(version)(tmp_path / "c.mat", spoilt), words)


def test_values_slightly_outside_the_range_are_kept(tmp_path: Path, cube: Array, write_mat73: Write) -> None:
    rounded = cube.copy()
    rounded[0, 0, :2] = 1.0005, -0.0005
    np.testing.assert_array_equal(read_ntire_cube(write_mat73(tmp_path / "c.mat", rounded)), rounded)


def test_float64_beyond_float32_is_refused_without_a_warning(mat73: Path, recwarn: pytest.WarningsRecorder) -> None:
    with h5py.File(mat73, "r+") as file:
        file["cube"][0, 0, 0] = 1e300
    refusal(read_ntire_cube, mat73, "NaN or infinite")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((24, 20, 31), r"shape \(24, 20, 31\), expected float \(31, W, H\)"),  # not transposed
        ((30, 24, 20), r"shape \(30, 24, 20\)"),
        ((31, 24), r"shape \(31, 24\)"),
        ((31, 24, 20, 1), r"shape \(31, 24, 20, 1\)"),
        ((31, 0, 20), r"shape \(31, 0, 20\)"),
        ((31, 10**6, 10**6), "1000000000000 pixels, expected 1 to 16 million"),  # the file holds none of these values
        ((31, 24, 20), "truncated, some of its cube was never written"),
    ],
)
def test_cube_of_another_shape_is_refused_unread(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    path = tmp_path / "c.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", shape, np.float64)
    refusal(read_ntire_cube, path, words)


def test_unwritten_chunk_is_refused(tmp_path: Path, cube: Array) -> None:
    path = tmp_path / "c.mat"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("cube", (31, 24, 20), np.float32, chunks=(1, 24, 20), compression="gzip")
        data[:30] = cube[:30].transpose(0, 2, 1)
    refusal(read_ntire_cube, path, "truncated, some of its cube was never written")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cube", np.ones((31, 24, 20), np.uint16), "uint16 with shape .*, expected float"),
        ("cube", np.ones((31, 24, 20), np.complex64), "expected float"),
        ("cube", h5py.SoftLink("/norm_factor"), "'cube' is not a dataset inside this file"),
        ("cube", h5py.ExternalLink("other.mat", "/cube"), "'cube' is not a dataset inside this file"),
        ("bands", h5py.ExternalLink("other.mat", "/bands"), "'bands' is not a dataset inside this file"),
        ("bands", np.array([b"x"] * 31), "damaged, missing, truncated or unsupported"),
        ("cube", None, r"holds \['bands', 'norm_factor'\], expected 'cube'"),
    ],
    ids=["integers", "complex", "soft link", "external link", "bands elsewhere", "text", "no cube"],
)
def test_dataset_that_is_not_an_array_of_floats_is_refused(mat73: Path, name: str, value: Any, words: str) -> None:
    shutil.copy(mat73, mat73.with_name("other.mat"))  # a reader that follows the link would find a good cube
    with h5py.File(mat73, "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value
    refusal(read_ntire_cube, mat73, words)


def test_values_in_external_files_are_refused(mat73: Path, cube: Array) -> None:
    values = cube.transpose(0, 2, 1)
    values.tofile(mat73.with_name("raw"))
    with h5py.File(mat73, "r+") as file:
        del file["cube"]
        file.create_dataset(
            "cube", values.shape, np.float32, external=[(str(mat73.with_name("raw")), 0, values.nbytes)]
        )
    refusal(read_ntire_cube, mat73, "'cube' is not a dataset inside this file")
    with h5py.File(mat73, "r+") as file:
        del file["cube"]
        layout = h5py.VirtualLayout(values.shape, np.float32)
        layout[:] = h5py.VirtualSource("other.mat", "cube", values.shape)
        file.create_virtual_dataset("cube", layout)
    refusal(read_ntire_cube, mat73, "'cube' is not a dataset inside this file")
    with h5py.File(mat73, "r+") as file:
        del file["cube"]
        file.create_group("cube")
    refusal(read_ntire_cube, mat73, "'cube' is not a dataset inside this file")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"other": np.ones(3)}, r"holds \['other'\], expected 'cube'"),
        ({"cube": np.ones((31, 24, 20))}, r"shape \(31, 24, 20\), expected float \(H, W, 31\)"),
        ({"cube": np.ones((24, 31))}, r"shape \(24, 31\)"),
        ({"cube": np.ones((5, 5, 31), np.uint8)}, "uint8 with shape .*, expected float"),
        ({"cube": np.ones((5, 5, 31), complex)}, r"holds \[\], expected 'cube'"),
    ],
)
def test_invalid_contents_of_matlab_5_are_refused(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    scipy.io.savemat(tmp_path / "c.mat", values)
    refusal(read_ntire_cube, tmp_path / "c.mat", words)


@SHARES
@pytest.mark.parametrize("version", ["write_mat73", "write_mat5"])
def test_truncated_matlab_file_is_refused(
    version: str, share: float, request: pytest.FixtureRequest, tmp_path: Path, cube: Array
) -> None:
    path = request.getfixturevalue(version)(tmp_path / "c.mat", cube)
    cut(path, share)
    refusal(read_ntire_cube, path, r"truncated or unsupported|truncated, some|holds \[\]")


def test_file_that_is_not_matlab_is_refused(tmp_path: Path) -> None:
    refusal(
        read_ntire_cube, tmp_path / "nowhere.mat", r"missing, .* \(No such file or directory\), expected an NTIRE cube"
    )
    refusal(read_ntire_cube, tmp_path, "Is a directory")
    (tmp_path / "page.mat").write_text("<html>quota exceeded</html>" * 99)
    refusal(read_ntire_cube, tmp_path / "page.mat", "file signature not found")


@pytest.mark.parametrize("name", ["ARAD_HS_0001_clean.png", "ARAD_1K_0001.jpg"])
def test_frame_equals_opencvs_rgb_in_0_to_1(tmp_path: Path, name: str) -> None:
    """OpenCV is the reference, because the code of NTIRE and of MST++ reads with it."""
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8), (48, 34))
    cv2.imwrite(str(tmp_path / name), pixels)
    frame = read_ntire_frame(tmp_path / name)
    assert frame.dtype == np.float32
    assert frame.shape == (3, 34, 48)
    assert frame.flags.c_contiguous
    seen = cv2.imread(str(tmp_path / name))[..., ::-1].transpose(2, 0, 1)
    np.testing.assert_allclose(frame * 255, seen, rtol=0, atol=1e-4 if name.endswith("png") else 1)


@SHARES
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_truncated_picture_is_refused(tmp_path: Path, name: str, share: float) -> None:
    cv2.imwrite(str(tmp_path / name), np.random.default_rng(0).integers(0, 256, (34, 48, 3), np.uint8))
    cut(tmp_path / name, share)
    refusal(read_ntire_frame, tmp_path / name, "truncated or unsupported .*, expected a whole PNG or JPEG")


@pytest.mark.parametrize(
    ("image", "format", "words"),
    [
        (Image.new("L", (9, 9)), "JPEG", "mode L, expected an RGB picture"),
        (Image.new("RGBA", (9, 9)), "PNG", "mode RGBA, expected an RGB picture"),
        (Image.new("RGB", (9, 9)), "BMP", "cannot identify image"),
        (Image.new("1", (MAX_PIXELS // 4000 + 1, 4000)), "PNG", "16004000 pixels, expected 1 to 16 million"),
    ],
    ids=["grey", "alpha", "BMP", "large"],
)
def test_picture_of_another_format_is_refused(tmp_path: Path, image: Image.Image, format: str, words: str) -> None:
    image.save(tmp_path / "a.jpg", format)
    refusal(read_ntire_frame, tmp_path / "a.jpg", words)


def test_sixteen_bit_picture_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((9, 9, 3), 40000, np.uint16))
    refusal(read_ntire_frame, tmp_path / "a.png", "mode RGB;16B, expected an RGB picture of 8 bits a channel")
