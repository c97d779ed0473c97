"""The georeference of a frame reaches its cube in every format that has a place for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccnet.runtime.io.cubes import open_cube
from ccnet.runtime.io.formats.georeference import Georeference, envi_fields, read_georeference
from ccnet.runtime.io.frames import read_frame
from tests.runtime.io.cube_files import cube_of

rasterio = pytest.importorskip("rasterio", reason='rasterio is not installed: pip install ".[geo]"')

UTM_32N, WGS_84, GEOCENTRIC = 32632, 4326, 4978
TRANSFORM = (0.5, 0.0, 500000.0, 0.0, -0.5, 5400000.0)


def place(code: int = UTM_32N, transform: tuple[float, ...] = TRANSFORM) -> Georeference:
    a, b, c, d, e, f = transform
    return Georeference(crs=rasterio.crs.CRS.from_epsg(code).to_wkt(), transform=(a, b, c, d, e, f))


def write_frame(path: Path) -> Path:
    options = {"driver": "GTiff", "height": 20, "width": 24, "count": 3, "dtype": "uint8"}
    transform = rasterio.Affine(*TRANSFORM)
    with rasterio.open(path, "w", crs=f"EPSG:{UTM_32N}", transform=transform, photometric="rgb", **options) as file:
        file.write(np.random.default_rng(0).integers(0, 255, (3, 20, 24), np.uint8))
    return path


def test_frame_of_a_survey_has_its_place(tmp_path: Path) -> None:
    path = write_frame(tmp_path / "frame.tif")
    height, width = read_frame(path).shape[:2]
    found = read_georeference(path, height, width)
    assert found is not None
    assert found.transform == TRANSFORM
    assert rasterio.crs.CRS.from_wkt(found.crs).to_epsg() == UTM_32N


def test_world_file_beside_a_picture_counts(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(tmp_path / "frame.png")
    assert read_georeference(tmp_path / "frame.png", 20, 24) is None
    (tmp_path / "frame.pgw").write_text("0.5\n0\n0\n-0.5\n500000.25\n5399999.75\n")  # of the first pixel's centre
    found = read_georeference(tmp_path / "frame.png", 20, 24)
    assert found == Georeference(crs="", transform=TRANSFORM)


def test_picture_without_a_place_has_none(tmp_path: Path) -> None:
    plain, turned, text = (tmp_path / name for name in ("plain.tif", "turned.tif", "text.tif"))
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(plain)
    assert read_georeference(plain, 20, 24) is None
    write_frame(turned)
    assert read_georeference(turned, 24, 20) is None  # the frame was turned by its EXIF orientation
    text.write_text("no picture")
    assert read_georeference(text, 20, 24) is None


@pytest.mark.parametrize("name", ["c.tif", "c.nc", "c.hdr"])
@pytest.mark.parametrize("code", [UTM_32N, WGS_84])
def test_gdal_finds_the_place_of_a_cube(tmp_path: Path, name: str, code: int) -> None:
    transform = TRANSFORM if code == UTM_32N else (1e-5, 0.0, 8.5, 0.0, -1e-5, 49.25)
    with open_cube(tmp_path / name, 20, 24, None, place(code, transform)) as writer:
        writer.write(0, cube_of())
    opened = {"c.nc": f"netcdf:{tmp_path}/c.nc:reflectance", "c.hdr": f"{tmp_path}/c.img"}
    with rasterio.open(opened.get(name, tmp_path / name)) as file:
        np.testing.assert_allclose(file.transform[:6], transform, rtol=1e-9)
        if name == "c.hdr" and code == WGS_84:  # GDAL turns the axes of ENVI's degrees, so the code is lost
            assert file.crs.is_geographic and 'DATUM["WGS_1984"' in file.crs.to_wkt()
        else:
            assert file.crs.to_epsg() == code
        np.testing.assert_array_equal(file.read(), cube_of())


@pytest.mark.parametrize("name", ["c.tif", "c.nc"])
def test_turned_picture_keeps_its_place(tmp_path: Path, name: str) -> None:
    transform = (0.4, 0.3, 500000.0, 0.3, -0.4, 5400000.0)
    with open_cube(tmp_path / name, 20, 24, None, place(transform=transform)) as writer:
        writer.write(0, cube_of())
    opened = {"c.nc": f"netcdf:{tmp_path}/c.nc:reflectance"}
    with rasterio.open(opened.get(name, tmp_path / name)) as file:
        np.testing.assert_allclose(file.transform[:6], transform, rtol=1e-9)
    assert not envi_fields(place(transform=transform))  # ENVI's header has no fields for it here


@pytest.mark.parametrize("name", ["c.tif", "c.nc", "c.hdr"])
def test_system_that_a_format_cannot_name_is_left_out(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """ESRI's WKT, which ENVI has, knows no geocentric systems."""
    with open_cube(tmp_path / name, 20, 24, None, place(GEOCENTRIC)) as writer:
        writer.write(0, cube_of())
    assert set(envi_fields(place(GEOCENTRIC))) == {"map info"}
    assert not capfd.readouterr().err


def test_frame_whose_system_gdal_cannot_write_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise rasterio.errors.CRSError("cannot be written as WKT")

    class Crs:
        to_wkt = refuse

    path = write_frame(tmp_path / "frame.tif")
    monkeypatch.setattr("rasterio.io.DatasetReader.crs", Crs())
    assert read_georeference(path, 20, 24) == Georeference(crs="", transform=TRANSFORM)
