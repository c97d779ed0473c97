"""ENVI cubes of any camera, written by the tests themselves, complete and damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import BANDS_NM
from ccnet.data.camera import Array
from ccnet.data.readers import read_envi_cube

from .damaged import MakeCube, Write, cut, refusal


@pytest.fixture(scope="module")
def cube(make_cube: MakeCube) -> Array:
    return make_cube(20, 24)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_every_interleave_and_byte_order_is_read(
    tmp_path: Path, cube: Array, write_envi: Write, interleave: str, byteorder: str
) -> None:
    read = read_envi_cube(write_envi(tmp_path / "c.hdr", cube, interleave=interleave, byteorder=byteorder))
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, cube)


@pytest.mark.parametrize(
    ("fields", "per_nm"),
    [({}, 1), ({"wavelength units": "Micrometers"}, 1e-3), ({"wavelength units": None}, 1)],
    ids=["nm", "micrometres", "no unit"],
)
def test_the_31_bands_are_selected_from_more_bands(
    tmp_path: Path, cube: Array, write_envi: Write, fields: dict[str, Any], per_nm: float
) -> None:
    """Read a cube of a camera with bands from 1000 down to 385 nm in 5 nm steps."""
    nm = np.arange(1000, 380, -5)
    many = np.full((nm.size, 20, 24), 0.5, np.float64)
    many[np.searchsorted(-nm, -np.array(BANDS_NM))] = cube
    path = write_envi(tmp_path / "c.hdr", many, fields | {"wavelength": [f"{per_nm * w:.6g}" for w in nm]})
    np.testing.assert_array_equal(read_envi_cube(path), cube)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32])
def test_integers_are_divided_by_their_scale(tmp_path: Path, cube: Array, write_envi: Write, dtype: Any) -> None:
    stored = np.round(cube * 10000).astype(dtype)
    read = read_envi_cube(write_envi(tmp_path / "c.hdr", stored, {"reflectance scale factor": 10000}))
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
        ({"reflectance scale factor": 0}, "reflectance scale factor is '0', expected a number above 0"),
        ({"reflectance scale factor": "nan"}, "reflectance scale factor is 'nan', expected a number above 0"),
        ({"reflectance scale factor": "ten"}, "reflectance scale factor is 'ten', expected a number above 0"),
        ({"reflectance scale factor": 0.01}, "values from .*, expected reflectance"),
    ],
)
def test_invalid_header_field_is_refused(
    tmp_path: Path, cube: Array, write_envi: Write, fields: dict[str, Any], words: str
) -> None:
    refusal(read_envi_cube, write_envi(tmp_path / "c.hdr", cube, fields), words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("interleave = bip", "interleave = Tiled", "expected interleave bsq, bil or bip"),
        ("ENVI Standard", "ENVI Spectral Library", "not a picture"),
        ("lines = 20", "lines = 200000000", "4800000000 pixels, expected 1 to 16 million"),
        ("lines = 20", "lines = -20", r"bands, lines and samples are \(31, -20, 24\), expected at least 1 each"),
        ("lines = 20", "", "lines is '', expected a whole number"),
        ("data type = 4", "data type = 99", "data type is 99 .*, expected one of 1, 2, 3"),
        ("data type = 4", "data type = 6", "data type is 6 .*, expected one of 1, 2, 3"),
        ("data type = 4", "data type = 12", "uint16 without 'reflectance scale factor', expected it for integers"),
        ("}", "", "has no closing brace, expected a whole header"),
        ("ENVI\n", "RADIANCE\n", "no ENVI header"),
        ("ENVI\n", f"ENVI\n{' ' * (1 << 20)}\n", "longer than 1 MB"),
    ],
)
def test_damaged_header_is_refused(
    tmp_path: Path, cube: Array, write_envi: Write, old: str, new: str, words: str
) -> None:
    path = write_envi(tmp_path / "c.hdr", cube)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    refusal(read_envi_cube, path, words)


def test_image_file_of_wrong_length_is_refused(tmp_path: Path, cube: Array, write_envi: Write) -> None:
    path = write_envi(tmp_path / "c.hdr", cube)
    image, size = path.with_suffix(".img"), cube.nbytes
    cut(image, 0.5)
    refusal(read_envi_cube, path, f"truncated or of another cube: {size // 2} bytes, expected {size}", named=image)
    image.unlink()
    refusal(read_envi_cube, path, "no such file, expected the values of c.hdr", named=image)
    path.write_bytes(bytes(range(256)))
    refusal(read_envi_cube, path, "no ENVI header")
    refusal(read_envi_cube, tmp_path / "nowhere.hdr", "No such file")


def test_nan_in_an_envi_cube_is_refused(tmp_path: Path, cube: Array, write_envi: Write) -> None:
    spoilt = cube.copy()
    spoilt[30, 19, 23] = np.nan
    refusal(read_envi_cube, write_envi(tmp_path / "c.hdr", spoilt), "NaN or infinite")
