"""ENVI files: written for other programs, read in every layout."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from spectral.io import envi

from ccnet.contract import BANDS_NM
from ccnet.runtime.io.cubes import read_cube
from tests.runtime.io.cube_files import cube_of, refusal, save, with_value


def test_spectral_reads_the_envi_file(tmp_path: Path) -> None:
    cube = cube_of()
    path = save(tmp_path / "c.hdr", cube, Model="v1 {x}\nsamples = 9", weights="ab12")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = envi.open(str(path))
    np.testing.assert_array_equal(np.asarray(image.load()).transpose(2, 0, 1), cube)
    assert image.bands.centers == list(BANDS_NM)
    assert image.bands.band_unit == "Nanometers"
    assert image.metadata["band names"][0] == "400 nm"
    assert "reflectance" in image.metadata["description"]
    assert image.metadata["ccnet model"] == "v1 x samples = 9"
    assert image.metadata["ccnet weights"] == "ab12"


def test_envi_header_of_spectral_is_read(tmp_path: Path) -> None:
    cube, path = cube_of(), tmp_path / "c.hdr"
    envi.save_image(str(path), cube.transpose(1, 2, 0), interleave="bsq", metadata={"wavelength": list(BANDS_NM)})
    np.testing.assert_array_equal(read_cube(path), cube)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data[:100], lambda data: data + b"x"])
def test_image_of_another_size_than_its_header_is_refused(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = save(tmp_path / "c.hdr", cube_of())
    image = tmp_path / "c.img"
    image.write_bytes(change(image.read_bytes()))
    with refusal(image, "truncated"):
        read_cube(path)


def test_image_with_nan_or_missing_is_refused(tmp_path: Path) -> None:
    path, image = save(tmp_path / "c.hdr", cube_of()), tmp_path / "c.img"
    image.write_bytes(with_value(np.nan).tobytes())
    with refusal(path, "NaN"):
        read_cube(path)
    image.write_bytes(b"")
    with refusal(image, "empty"):
        read_cube(path)
    image.unlink()
    with refusal(image, "no such file"):
        read_cube(path)


@pytest.mark.parametrize(
    ("old", "new"), [("data type = 4", "data type = 5"), ("header offset = 0", "header offset = 512")]
)
def test_header_that_claims_a_larger_image_is_refused(tmp_path: Path, old: str, new: str) -> None:
    path = save(tmp_path / "c.hdr", cube_of())
    path.write_text(path.read_text().replace(old, new))
    with refusal(tmp_path / "c.img", "truncated"):
        read_cube(path)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_cube_of_any_layout_is_read(tmp_path: Path, interleave: str, byteorder: str, dtype: str) -> None:
    cube, path = cube_of(), tmp_path / "c.hdr"
    fields = {"wavelength": [nm / 1000 for nm in BANDS_NM], "wavelength units": "Micrometers"}
    layout = {"interleave": interleave, "byteorder": byteorder, "dtype": dtype}
    envi.save_image(str(path), cube.transpose(1, 2, 0), metadata=fields, ext="dat", **layout)
    found = read_cube(path)
    np.testing.assert_array_equal(found, cube)
    assert type(found) is np.ndarray and found.flags.c_contiguous and found.flags.writeable


def test_integers_are_divided_by_the_headers_scale(tmp_path: Path) -> None:
    path, stored = tmp_path / "c.hdr", np.rint(cube_of() * 1000).astype(np.uint16)
    fields = {"wavelength": list(BANDS_NM), "reflectance scale factor": 1000}
    envi.save_image(str(path), stored.transpose(1, 2, 0), metadata=fields, dtype=np.uint16)
    np.testing.assert_allclose(read_cube(path), stored / 1000, rtol=1e-6)


def test_header_of_many_open_braces_is_refused_quickly(tmp_path: Path) -> None:
    path = tmp_path / "c.hdr"
    path.write_text("ENVI\n" + "a = {\n" * 170_000)
    with refusal(path, "no closing brace"):
        read_cube(path)
    path.write_text("ENVI\n" + " " * (1 << 20))
    with refusal(path, "longer than 1 MB"):
        read_cube(path)


def test_spectral_python_finds_widths_and_default_bands(tmp_path: Path) -> None:
    """SPy opens the file with the bands' centres and widths, and shows it in colours that a person expects."""
    envi = pytest.importorskip("spectral.io.envi")
    image = envi.open(str(save(tmp_path / "c.hdr", cube_of())))
    assert image.bands.centers == list(BANDS_NM)
    assert image.bands.bandwidths == [10.0] * 31
    assert [BANDS_NM[int(band) - 1] for band in image.metadata["default bands"]] == [640, 550, 460]
