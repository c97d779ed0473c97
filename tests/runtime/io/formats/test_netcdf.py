"""NetCDF: what xarray and GDAL find in a cube's file, and files of other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccnet.contract import BANDS_NM
from ccnet.runtime.io.cubes import map_cube, read_cube
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


def test_file_that_is_no_cube_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.nc"
    xarray.Dataset({"a": ("x", [1.0, 2.0])}).to_netcdf(path, engine="h5netcdf")
    with refusal(path, "'a'", "axis of wavelengths"):
        read_cube(path)
    path.write_bytes(b"CDF\1" + bytes(60))  # NetCDF 3
    with refusal(path, "unsupported"):
        read_cube(path)
