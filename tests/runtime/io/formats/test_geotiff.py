"""GeoTIFF: what GDAL finds in a cube's file, and files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.io.cubes import map_cube, open_cube, read_cube
from ccnet.runtime.io.formats.mapped_cube import Selection
from tests.runtime.io.cube_files import cube_of, names, refusal, save

rasterio = pytest.importorskip("rasterio", reason='rasterio is not installed: pip install ".[geo]"')
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write_tif(path: Path, cube: Any, tags: dict[int, dict[str, str]], ns: str | None = None) -> Path:
    size = {"count": cube.shape[0], "height": cube.shape[1], "width": cube.shape[2], "dtype": cube.dtype}
    with rasterio.open(path, "w", driver="GTiff", transform=rasterio.Affine.scale(2), **size) as file:
        file.write(cube)
        for band, values in tags.items():
            file.update_tags(band, ns=ns, **values)
    return path


def test_gdal_finds_tiles_overviews_and_wavelengths(tmp_path: Path) -> None:
    cube = cube_of(300, 270)
    save(tmp_path / "c.tif", cube, source="photo.jpg")
    assert names(tmp_path) == ["c.tif"]  # no file of GDAL's that would shadow it
    with rasterio.open(tmp_path / "c.tif") as file:
        np.testing.assert_array_equal(file.read(), cube)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.block_shapes[0] == (128, 128)
        assert file.overviews(1) == [2, 4]
        assert file.tags()["ccnet_source"] == "photo.jpg"
        for band, nm in enumerate(BANDS_NM, start=1):
            assert file.tags(band, ns="IMAGERY") == {
                "CENTRAL_WAVELENGTH_UM": f"{nm / 1000:.3f}",
                "FWHM_UM": "0.010",
            }
            assert file.tags(band) == {"wavelength": str(nm), "wavelength_units": "Nanometers", "fwhm": "10"}
            assert file.descriptions[band - 1] == f"{nm} nm"


def test_wavelengths_of_other_programs_are_read(tmp_path: Path) -> None:
    cube = cube_of(5, 6)
    imagery = {band: {"CENTRAL_WAVELENGTH_UM": str(nm / 1000)} for band, nm in enumerate(BANDS_NM, start=1)}
    enmap = {band: {"wavelength": str(nm), "wavelength_units": "nm"} for band, nm in enumerate(BANDS_NM, start=1)}
    micro = {band: {"Wavelength": f"{nm / 1e3}", "Wavelength_unit": "um"} for band, nm in enumerate(BANDS_NM, start=1)}
    np.testing.assert_array_equal(read_cube(write_tif(tmp_path / "a.tif", cube, imagery, "IMAGERY")), cube)
    np.testing.assert_array_equal(read_cube(write_tif(tmp_path / "b.tif", cube, enmap)), cube)
    np.testing.assert_array_equal(read_cube(write_tif(tmp_path / "c.tiff", cube, micro)), cube)


def test_file_that_is_no_cube_is_refused(tmp_path: Path) -> None:
    tags = {band: {"wavelength": str(nm)} for band, nm in enumerate(BANDS_NM, start=1)}
    path = tmp_path / "c.tif"
    with refusal(path, "31 of 31 bands have no wavelength"):
        read_cube(write_tif(path, cube_of(5, 6), {}))
    with refusal(path, "not a cube", "(3, 5, 6)"):
        read_cube(write_tif(path, cube_of(5, 6)[:3], {band: tags[band] for band in (1, 2, 3)}))
    with refusal(path, "complex64", "real numbers"):
        read_cube(write_tif(path, cube_of(5, 6).astype(np.complex64), tags))
    with refusal(path, "ascending"):
        read_cube(write_tif(path, cube_of(5, 6), {32 - band: values for band, values in tags.items()}))
    path.write_bytes(b"II*\0" + bytes(40))
    with refusal(path, "damaged"):
        read_cube(path)


def test_overviews_serve_thinned_parts(tmp_path: Path) -> None:
    """A part with every 4th pixel comes from the overview of means: it is near the mean, not the pixel."""
    save(tmp_path / "c.tif", cube_of(512, 512))
    with map_cube(tmp_path / "c.tif") as cube:
        part = cube.read([3], Selection(0, 512, 4), Selection(0, 512, 4))
    assert part.shape == (1, 128, 128)
    means = cube_of(512, 512)[3].reshape(128, 4, 128, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(part[0], means, atol=1e-5)


def test_error_of_gdal_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise rasterio.errors.RasterioIOError("no space left on device")

    monkeypatch.setattr("rasterio.shutil.copy", refuse)
    with pytest.raises(CCNetError, match="no space left"), open_cube(tmp_path / "c.tif", 20, 24) as writer:
        writer.write(0, cube_of())
    assert not names(tmp_path)
