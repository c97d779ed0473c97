"""Files in their published formats, written by the tests themselves, whole and spoilt."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.data.camera import Array
from ccnet.data.readers import MAX_PIXELS, read_cave, read_envi, read_mat, read_rgb

MakeCube = Callable[..., Array]
Write = Callable[..., Path]
SHARES = pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.9, 0.99])


@pytest.fixture(scope="module")
def cube(make_cube: MakeCube) -> Array:
    return make_cube(20, 24)


@pytest.fixture
def mat73(tmp_path: Path, cube: Array, write_mat73: Write) -> Path:
    return write_mat73(tmp_path / "ARAD_1K_0001.mat", cube)


@pytest.fixture
def scene(tmp_path: Path, cube: Array, write_cave: Write) -> Path:
    return write_cave(tmp_path / "beads_ms", cube)


def refusal(read: Callable[[Path], Array], path: Path, words: str, named: Path | None = None) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(f"{named or path}")
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def cut(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])


# ---------------------------------------------------------------------------------------------------------------------
# MATLAB


@pytest.mark.parametrize("version", ["write_mat73", "write_mat5"])
def test_a_cube_of_either_matlab_is_read_upright(
    version: str, request: pytest.FixtureRequest, tmp_path: Path, cube: Array
) -> None:
    read = read_mat(request.getfixturevalue(version)(tmp_path / "c.mat", cube))
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, cube)


def test_single_precision_uncompressed_and_without_bands(tmp_path: Path, cube: Array) -> None:
    path = tmp_path / "c.mat"
    with h5py.File(path, "w") as file:
        file["cube"] = cube.transpose(0, 2, 1)
    np.testing.assert_array_equal(read_mat(path), cube)
    scipy.io.savemat(path, {"cube": cube.transpose(1, 2, 0)})
    np.testing.assert_array_equal(read_mat(path), cube)


def test_bands_too_many_to_read_are_not_read(mat73: Path) -> None:
    with h5py.File(mat73, "r+") as file:
        del file["bands"]
        file.create_dataset("bands", (10**12,), np.float64)  # of which the disk holds nothing
    refusal(read_mat, mat73, "other wavelengths")


def test_bands_may_lie_either_way(mat73: Path, cube: Array) -> None:
    with h5py.File(mat73, "r+") as file:
        del file["bands"]
        file["bands"] = np.array([BANDS_NM], np.int32)
    np.testing.assert_array_equal(read_mat(mat73), cube)


BANDS = pytest.mark.parametrize(
    ("bands", "words"),
    [
        (BANDS_NM[::-1], "wrong wavelength order, expected 'bands' from 400 to 700 nm; sort the cube"),
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
    refusal(read_mat, request.getfixturevalue(version)(tmp_path / "c.mat", cube, bands), words)


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
def test_values_that_are_no_reflectance_are_refused(
    version: str, value: float, words: str, request: pytest.FixtureRequest, tmp_path: Path, cube: Array
) -> None:
    spoilt = cube.copy()
    spoilt[7, 3, 5] = value
    refusal(read_mat, request.getfixturevalue(version)(tmp_path / "c.mat", spoilt), words)


def test_rounding_is_let_through_and_not_clipped(tmp_path: Path, cube: Array, write_mat73: Write) -> None:
    rounded = cube.copy()
    rounded[0, 0, :2] = 1.0005, -0.0005
    np.testing.assert_array_equal(read_mat(write_mat73(tmp_path / "c.mat", rounded)), rounded)


def test_float64_beyond_float32_is_refused_quietly(mat73: Path, recwarn: pytest.WarningsRecorder) -> None:
    with h5py.File(mat73, "r+") as file:
        file["cube"][0, 0, 0] = 1e300
    refusal(read_mat, mat73, "NaN or infinite")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((24, 20, 31), r"shape \(24, 20, 31\), expected \(31, W, H\)"),  # not transposed
        ((30, 24, 20), r"shape \(30, 24, 20\)"),
        ((31, 24), r"shape \(31, 24\)"),
        ((31, 24, 20, 1), r"shape \(31, 24, 20, 1\)"),
        ((31, 0, 20), r"shape \(31, 0, 20\)"),
        ((31, 10**6, 10**6), "1000000000000 pixels, expected 1 to 16 million"),  # of which the disk holds nothing
        ((31, 24, 20), "truncated, some of its cube was never written"),
    ],
)
def test_another_shape_is_refused_before_it_is_read(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    path = tmp_path / "c.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", shape, np.float64)
    refusal(read_mat, path, words)


def test_a_chunk_that_was_not_written_is_missed(tmp_path: Path, cube: Array) -> None:
    path = tmp_path / "c.mat"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("cube", (31, 24, 20), np.float32, chunks=(1, 24, 20), compression="gzip")
        data[:30] = cube[:30].transpose(0, 2, 1)
    refusal(read_mat, path, "truncated, some of its cube was never written")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cube", np.ones((31, 24, 20), np.uint16), "type uint16, expected float"),
        ("cube", np.ones((31, 24, 20), np.complex64), "expected float"),
        ("cube", h5py.SoftLink("/norm_factor"), "'cube' is not a dataset inside this file"),
        ("cube", h5py.ExternalLink("other.mat", "/cube"), "'cube' is not a dataset inside this file"),
        ("bands", h5py.ExternalLink("other.mat", "/bands"), "'bands' is not a dataset inside this file"),
        ("bands", np.array([b"x"] * 31), "damaged, missing, truncated or unsupported"),
        ("cube", None, r"holds \['bands', 'norm_factor'\], expected 'cube'"),
    ],
    ids=["integers", "complex", "soft link", "external link", "bands elsewhere", "text", "no cube"],
)
def test_what_is_no_plain_cube_is_refused(mat73: Path, name: str, value: Any, words: str) -> None:
    shutil.copy(mat73, mat73.with_name("other.mat"))  # a link that was followed would find a good cube
    with h5py.File(mat73, "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value
    refusal(read_mat, mat73, words)


def test_numbers_in_other_files_are_refused(mat73: Path, cube: Array) -> None:
    values = cube.transpose(0, 2, 1)
    values.tofile(mat73.with_name("raw"))
    with h5py.File(mat73, "r+") as file:
        del file["cube"]
        file.create_dataset(
            "cube", values.shape, np.float32, external=[(str(mat73.with_name("raw")), 0, values.nbytes)]
        )
    refusal(read_mat, mat73, "'cube' is not a dataset inside this file")
    with h5py.File(mat73, "r+") as file:
        del file["cube"]
        layout = h5py.VirtualLayout(values.shape, np.float32)
        layout[:] = h5py.VirtualSource("other.mat", "cube", values.shape)
        file.create_virtual_dataset("cube", layout)
    refusal(read_mat, mat73, "'cube' is not a dataset inside this file")
    with h5py.File(mat73, "r+") as file:
        del file["cube"]
        file.create_group("cube")
    refusal(read_mat, mat73, "'cube' is not a dataset inside this file")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"other": np.ones(3)}, r"holds \['other'\], expected 'cube'"),
        ({"cube": np.ones((31, 24, 20))}, r"shape \(31, 24, 20\), expected \(H, W, 31\)"),
        ({"cube": np.ones((24, 31))}, r"shape \(24, 31\)"),
        ({"cube": np.ones((5, 5, 31), np.uint8)}, "type uint8, expected float"),
        ({"cube": np.ones((5, 5, 31), complex)}, r"holds \[\], expected 'cube'"),
    ],
)
def test_other_contents_of_matlab_5_are_refused(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    scipy.io.savemat(tmp_path / "c.mat", values)
    refusal(read_mat, tmp_path / "c.mat", words)


@SHARES
@pytest.mark.parametrize("version", ["write_mat73", "write_mat5"])
def test_part_of_a_matlab_file_is_refused(
    version: str, share: float, request: pytest.FixtureRequest, tmp_path: Path, cube: Array
) -> None:
    path = request.getfixturevalue(version)(tmp_path / "c.mat", cube)
    cut(path, share)
    refusal(read_mat, path, r"truncated or unsupported|truncated, some|holds \[\]")


def test_what_is_no_matlab_file_is_refused(tmp_path: Path) -> None:
    refusal(read_mat, tmp_path / "nowhere.mat", r"missing, .* \(No such file or directory\), expected an NTIRE cube")
    refusal(read_mat, tmp_path, "Is a directory")
    (tmp_path / "page.mat").write_text("<html>quota exceeded</html>" * 99)
    refusal(read_mat, tmp_path / "page.mat", "file signature not found")


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


@pytest.mark.parametrize("name", ["ARAD_HS_0001_clean.png", "ARAD_1K_0001.jpg"])
def test_a_frame_is_rgb_in_0_to_1_as_opencv_sees_it(tmp_path: Path, name: str) -> None:
    """NTIRE's own code, and MST++'s, read with OpenCV."""
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8), (48, 34))
    cv2.imwrite(str(tmp_path / name), pixels)
    frame = read_rgb(tmp_path / name)
    assert frame.dtype == np.float32
    assert frame.shape == (3, 34, 48)
    assert frame.flags.c_contiguous
    seen = cv2.imread(str(tmp_path / name))[..., ::-1].transpose(2, 0, 1)
    np.testing.assert_allclose(frame * 255, seen, rtol=0, atol=1e-4 if name.endswith("png") else 1)


@SHARES
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_part_of_a_picture_is_refused(tmp_path: Path, name: str, share: float) -> None:
    cv2.imwrite(str(tmp_path / name), np.random.default_rng(0).integers(0, 256, (34, 48, 3), np.uint8))
    cut(tmp_path / name, share)
    refusal(read_rgb, tmp_path / name, "truncated or unsupported .*, expected a whole PNG or JPEG")


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
def test_another_picture_is_refused(tmp_path: Path, image: Image.Image, format: str, words: str) -> None:
    image.save(tmp_path / "a.jpg", format)
    refusal(read_rgb, tmp_path / "a.jpg", words)


def test_a_picture_of_16_bits_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((9, 9, 3), 40000, np.uint16))
    refusal(read_rgb, tmp_path / "a.png", "mode RGB;16B, expected an RGB picture of 8 bits a channel")


# ---------------------------------------------------------------------------------------------------------------------
# CAVE


def test_a_scene_is_read_to_16_bits(scene: Path, cube: Array) -> None:
    read = read_cave(scene)
    assert read.dtype == np.float32
    assert read.shape == (31, 20, 24)
    np.testing.assert_allclose(read, cube, rtol=0, atol=0.5001 / 65535)


def test_a_missing_or_doubled_band_is_named(scene: Path) -> None:
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
def test_a_band_of_another_kind_is_refused(scene: Path, pixels: Any, words: str) -> None:
    cv2.imwrite(str(scene / "beads_ms_05.png"), pixels)
    refusal(read_cave, scene, words)


@SHARES
def test_part_of_a_band_is_refused(scene: Path, share: float) -> None:
    cut(scene / "beads_ms_31.png", share)
    refusal(read_cave, scene, "not a readable PNG")


# ---------------------------------------------------------------------------------------------------------------------
# ENVI


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_every_order_of_numbers_is_read(
    tmp_path: Path, cube: Array, write_envi: Write, interleave: str, byteorder: str
) -> None:
    read = read_envi(write_envi(tmp_path / "c.hdr", cube, interleave=interleave, byteorder=byteorder))
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, cube)


@pytest.mark.parametrize(
    ("fields", "per_nm"),
    [({}, 1), ({"wavelength units": "Micrometers"}, 1e-3), ({"wavelength units": None}, 1)],
    ids=["nm", "micrometres", "no unit"],
)
def test_the_31_bands_are_found_among_others(
    tmp_path: Path, cube: Array, write_envi: Write, fields: dict[str, Any], per_nm: float
) -> None:
    """A camera from 1000 down to 385 nm in 5 nm steps, which gives its bands in descending order."""
    nm = np.arange(1000, 380, -5)
    many = np.full((nm.size, 20, 24), 0.5, np.float64)
    many[np.searchsorted(-nm, -np.array(BANDS_NM))] = cube
    path = write_envi(tmp_path / "c.hdr", many, fields | {"wavelength": [f"{per_nm * w:.6g}" for w in nm]})
    np.testing.assert_array_equal(read_envi(path), cube)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32])
def test_integers_are_divided_by_their_scale(tmp_path: Path, cube: Array, write_envi: Write, dtype: Any) -> None:
    stored = np.round(cube * 10000).astype(dtype)
    read = read_envi(write_envi(tmp_path / "c.hdr", stored, {"reflectance scale factor": 10000}))
    np.testing.assert_array_equal(read, stored.astype(np.float32) / np.float32(10000))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"wavelength": None}, "0 wavelengths for 31 bands, expected one each"),
        ({"wavelength": BANDS_NM[:30]}, "30 wavelengths for 31 bands"),
        (
            {"wavelength": [nm + 5 for nm in BANDS_NM]},
            "has 0 bands of 400 nm, expected 400, 410, … 700 nm; resample it",
        ),
        ({"wavelength": [400, *BANDS_NM[:10], *BANDS_NM[11:]]}, "has 2 bands of 400 nm"),
        ({"wavelength": ["nan", *BANDS_NM[1:]]}, "has 0 bands of 400 nm"),
        ({"wavelength units": "GHz"}, "wavelength units are 'GHz', expected Nanometers or Micrometers"),
        ({"wavelength units": "Micrometers"}, "has 0 bands of 400 nm"),
        ({"reflectance scale factor": 0}, "divided by 0.0, expected reflectance"),
        ({"reflectance scale factor": "nan"}, "divided by nan, expected reflectance"),
        ({"reflectance scale factor": "ten"}, r"truncated or unsupported \(could not convert"),
        ({"reflectance scale factor": 0.01}, "values from .*, expected reflectance"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    tmp_path: Path, cube: Array, write_envi: Write, fields: dict[str, Any], words: str
) -> None:
    refusal(read_envi, write_envi(tmp_path / "c.hdr", cube, fields), words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("interleave = bip", "interleave = Bil", "expected interleave bsq, bil or bip"),
        ("ENVI Standard", "ENVI Spectral Library", "not a picture"),
        ("lines = 20", "lines = 200000000", "4800000000 pixels, expected 1 to 16 million"),
        ("lines = 20", "lines = -20", "-480 pixels"),
        ("lines = 20", "", "Mandatory parameter"),
        ("data type = 4", "data type = 99", "damaged"),
        ("data type = 4", "data type = 6", "complex64 divided by 1.0, expected reflectance"),
        ("data type = 4", "data type = 12", "uint16 without 'reflectance scale factor', expected it for integers"),
        ("}", "", "Failed to parse"),
        ("ENVI\n", "RADIANCE\n", "does not appear to be an ENVI header"),
        ("ENVI\n", f"ENVI\n{' ' * (1 << 20)}\n", "longer than 1 MB"),
    ],
)
def test_a_damaged_header_is_refused(
    tmp_path: Path, cube: Array, write_envi: Write, old: str, new: str, words: str
) -> None:
    path = write_envi(tmp_path / "c.hdr", cube)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    refusal(read_envi, path, words)


def test_another_length_of_the_numbers_is_refused(tmp_path: Path, cube: Array, write_envi: Write) -> None:
    path = write_envi(tmp_path / "c.hdr", cube)
    image, size = path.with_suffix(".img"), cube.nbytes
    cut(image, 0.5)
    refusal(read_envi, path, f"truncated or of another cube: {size // 2} bytes, expected {size}", named=image)
    image.unlink()
    refusal(read_envi, path, "Unable to determine the ENVI data file")
    path.write_bytes(bytes(range(256)))
    refusal(read_envi, path, "binary file")
    refusal(read_envi, tmp_path / "nowhere.hdr", "No such file")


def test_nan_in_an_envi_cube_is_refused(tmp_path: Path, cube: Array, write_envi: Write) -> None:
    spoilt = cube.copy()
    spoilt[30, 19, 23] = np.nan
    refusal(read_envi, write_envi(tmp_path / "c.hdr", spoilt), "NaN or infinite")
