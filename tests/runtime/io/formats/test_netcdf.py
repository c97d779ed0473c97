"""NetCDF: what xarray and GDAL find in a cube's file, and files of other programs."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from ccnet.contract import BANDS_NM
from ccnet.runtime.io.cubes import map_cube, read_cube
from ccnet.runtime.io.formats.mapped_cube import Selection
from tests.runtime.io.cube_files import cube_of, refusal, save

pytest.importorskip("h5netcdf", reason='h5netcdf is not installed: pip install ".[geo]"')
xarray = pytest.importorskip("xarray", reason="xarray is not installed")


def test_xarray_selects_by_wavelength(tmp_path: Path) -> None:
    save(tmp_path / "c.nc", cube_of(), source="photo.jpg")
    with xarray.open_dataset(tmp_path / "c.nc", engine="h5netcdf") as data:
        assert data.reflectance.dims == ("wavelength", "y", "x")
        assert tuple(data.wavelength.values) == BANDS_NM
        assert data.wavelength.attrs["units"] == "nm"
        assert data.attrs["Conventions"].startswith("CF-")
        assert data.attrs["ccnet_source"] == "photo.jpg"
        assert set(data.fwhm.values) == {10}
        np.testing.assert_array_equal(data.reflectance.sel(wavelength=550), cube_of()[15])
        assert (np.diff(data.y) < 0).all()


def test_file_says_what_its_values_are(tmp_path: Path) -> None:
    for content, title, name in (
        ({}, "Reflectance, 31 bands reconstructed from an RGB frame", "reflectance"),
        ({"content": "predicted error"}, "Predicted error", "predicted error"),
    ):
        save(tmp_path / "c.nc", cube_of(), **content)
        with xarray.open_dataset(tmp_path / "c.nc", engine="h5netcdf") as data:
            assert (data.attrs["title"], data.reflectance.attrs["long_name"]) == (title, name)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_gdal_shows_it_upright(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    save(tmp_path / "c.nc", cube_of())
    with rasterio.open(f"netcdf:{tmp_path}/c.nc:reflectance") as file:
        np.testing.assert_array_equal(file.read(), cube_of())


@pytest.mark.parametrize("dimensions", [("band", "y", "x"), ("y", "x", "band"), ("y", "band", "x")])
def test_files_of_xarray_are_read(tmp_path: Path, dimensions: tuple[str, ...]) -> None:
    data = xarray.DataArray(
        cube_of().astype(np.float64), dims=("band", "y", "x"), coords={"band": np.array(BANDS_NM) / 1000}, name="r"
    )
    data.band.attrs.update(units="um", standard_name="radiation_wavelength")
    data.transpose(*dimensions).to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    np.testing.assert_array_equal(read_cube(tmp_path / "c.nc"), cube_of())


def test_other_wavelengths_can_be_mapped_and_not_read(tmp_path: Path) -> None:
    data = xarray.DataArray(cube_of()[:4], dims=("wavelength", "y", "x"), coords={"wavelength": [450, 550, 650, 850]})
    data.wavelength.attrs["units"] = "nm"
    data.to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    with map_cube(tmp_path / "c.nc") as cube:
        assert cube.shape == (4, 20, 24)
        assert list(cube.wavelengths) == [450, 550, 650, 850]
    with refusal(tmp_path / "c.nc", "other wavelengths"):
        read_cube(tmp_path / "c.nc")


def test_fill_value_scale_and_offset_count(tmp_path: Path) -> None:
    path = save(tmp_path / "c.nc", cube_of())
    with h5py.File(path, "r+") as file:
        data = file["reflectance"]
        data[3, 1, 2], data[4, 0, 0] = -9999, 1e20
        data.attrs.update(scale_factor=np.float32([2]), add_offset=0.5, _FillValue=np.float32(-9999))
        data.attrs["missing_value"] = np.float32([1e20])
    with map_cube(path) as cube:
        part = cube.read(range(31), Selection(0, 20), Selection(0, 24))
    assert [list(at) for at in np.argwhere(np.isnan(part))] == [[3, 1, 2], [4, 0, 0]]
    np.testing.assert_allclose(part[5:], 2 * cube_of()[5:] + 0.5, rtol=1e-6)
    with refusal(path, "NaN"):
        read_cube(path)


def test_coordinate_without_its_values_is_refused(tmp_path: Path) -> None:
    """It would be read before the cube is checked, and takes as much memory as it says."""
    path = tmp_path / "c.nc"
    with h5py.File(path, "w") as file:
        scale = file.create_dataset("wavelength", (1 << 40,), "f8", chunks=(1 << 16,))
        scale.attrs.update(units="nm", standard_name="radiation_wavelength")
        scale.make_scale("wavelength")
        data = file.create_dataset("reflectance", (1 << 40, 1, 1), "f4", chunks=(1 << 16, 1, 1))
        data.dims[0].attach_scale(scale)
    with refusal(path, "axis of wavelengths"):
        read_cube(path)
    with h5py.File(path, "w") as file:  # of a cube's length, and zeros by HDF5 where it was never written
        scale = file.create_dataset("wavelength", (31,), "f8", chunks=(31,))
        scale.attrs["units"] = "nm"
        scale.make_scale("wavelength")
        file["reflectance"] = cube_of()
        file["reflectance"].dims[0].attach_scale(scale)
    with refusal(path, "axis of wavelengths"):
        read_cube(path)


def test_file_that_is_no_cube_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.nc"
    xarray.Dataset({"a": ("x", [1.0, 2.0])}).to_netcdf(path, engine="h5netcdf")
    with refusal(path, "'a'", "axis of wavelengths"):
        read_cube(path)
    path.write_bytes(b"CDF\1" + bytes(60))  # NetCDF 3
    with refusal(path, "unsupported"):
        read_cube(path)
