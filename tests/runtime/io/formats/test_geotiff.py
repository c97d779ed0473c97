"""GeoTIFF: what GDAL finds in a cube's file, and files of other programs."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.io.cubes import map_cube, open_cube, read_cube
from ccnet.runtime.io.formats import geotiff
from ccnet.runtime.io.formats.geotiff import read_geotiff
from ccnet.runtime.io.formats.mapped_cube import Selection
from tests.runtime.io.cube_files import cube_of, names, refusal, save

rasterio = pytest.importorskip("rasterio", reason='rasterio is not installed: pip install ".[geo]"')
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


WAVELENGTHS = {band: {"wavelength": str(nm)} for band, nm in enumerate(BANDS_NM, start=1)}


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
    tags, path = WAVELENGTHS, tmp_path / "c.tif"
    with refusal(path, "31 of 31 bands have no wavelength"):
        read_cube(write_tif(path, cube_of(5, 6), {}))
    with refusal(path, "not a cube", "(3, 5, 6)"):
        read_cube(write_tif(path, cube_of(5, 6)[:3], {band: tags[band] for band in (1, 2, 3)}))
    with refusal(path, "complex64", "real numbers"):
        read_cube(write_tif(path, cube_of(5, 6).astype(np.complex64), tags))
    feet = {
        band: {"wavelength": str(nm / 1e3), "wavelength_units": "feet"} for band, nm in enumerate(BANDS_NM, start=1)
    }
    with refusal(path, "wavelength_units are 'feet', expected nm or µm"):
        read_cube(write_tif(path, cube_of(5, 6), feet))
    with refusal(path, "ascending"):
        read_cube(write_tif(path, cube_of(5, 6), {32 - band: values for band, values in tags.items()}))
    path.write_bytes(b"II*\0" + bytes(40))
    with refusal(path, "damaged"):
        read_cube(path)


def test_overviews_serve_pictures_and_not_numbers(tmp_path: Path) -> None:
    """A picture with every 4th pixel comes from the overview of means: it is near the mean, not the pixel."""
    save(tmp_path / "c.tif", cube_of(512, 512))
    thin = Selection(0, 512, 4)
    with map_cube(tmp_path / "c.tif") as cube:
        assert cube.read_means is not None
        part, numbers = cube.read_means([3], thin, thin), cube.read([3], thin, thin)
    assert part.shape == (1, 128, 128)
    means = cube_of(512, 512)[3].reshape(128, 4, 128, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(part[0], means, atol=1e-5)
    np.testing.assert_array_equal(numbers[0], cube_of(512, 512)[3, ::4, ::4])


def test_scale_offset_and_nodata_count(tmp_path: Path) -> None:
    stored = np.rint(1e4 * cube_of(5, 6)).astype(np.uint16)
    stored[4, 2, 3] = 65535
    path = write_tif(tmp_path / "c.tif", stored, WAVELENGTHS)
    with refusal(path, "uint16", "scale"):
        read_cube(path)
    with refusal(path, "uint16", "scale"):
        map_cube(path)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets, file.nodata = [1e-4] * 31, [0.5] * 31, 65535
    with map_cube(path) as cube:
        part = cube.read(range(31), Selection(0, 5), Selection(0, 6))
    assert list(np.argwhere(np.isnan(part))[0]) == [4, 2, 3] and np.isnan(part).sum() == 1
    np.testing.assert_allclose(part[stored != 65535], 1e-4 * stored[stored != 65535] + 0.5, rtol=1e-6)
    with refusal(path, "NaN"):
        read_cube(path)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_file_with_a_hole_is_refused(tmp_path: Path, interleave: str) -> None:
    path = tmp_path / "c.tif"
    size = {"count": 31, "height": 40, "width": 36, "dtype": "float32", "interleave": interleave}
    for hole in (True, False):
        with rasterio.open(
            path, "w", driver="GTiff", tiled=True, blockxsize=16, blockysize=16, SPARSE_OK=True, **size
        ) as file:
            file.write(cube_of(40, 36)[:, :16] if hole else cube_of(40, 36), window=((0, 16 if hole else 40), (0, 36)))
            for band, values in WAVELENGTHS.items():
                file.update_tags(band, **values)
        if hole:
            with refusal(path, "never written"):
                read_cube(path)
    np.testing.assert_array_equal(read_cube(path), cube_of(40, 36))


def test_damaged_file_prints_nothing(tmp_path: Path) -> None:
    """GDAL warns on standard error, and rasterio prints a traceback for what GDAL says that is not UTF-8."""
    path = save(tmp_path / "c.tif", cube_of(5, 6))
    data = path.read_bytes()
    script = (
        "import sys\nfrom ccnet.contract import CCNetError\nfrom ccnet.runtime.io.cubes import read_cube\n"
        "for path in sys.argv[1:]:\n    try:\n        read_cube(path)\n    except CCNetError:\n        pass\n"
    )
    for at in range(8, 600, 4):
        (tmp_path / f"{at}.tif").write_bytes(data[:at] + b"\xbd\0" + data[at + 2 :])
    files = sorted(str(path) for path in tmp_path.glob("*.tif"))
    done = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, text=True, check=True)
    assert not done.stdout + done.stderr


def test_size_is_bound_before_values_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "c.tif", cube_of(5, 6))
    assert read_geotiff(path, max_pixels=30).shape == (31, 5, 6)
    with refusal(path, "30 pixels"):
        read_geotiff(path, max_pixels=29)


def test_close_waits_for_a_read() -> None:
    """GDAL's file must not be freed while another thread reads it."""
    calls: list[str] = []
    reading, release = threading.Event(), threading.Event()

    class File:
        block_shapes, nodatavals, scales, offsets = [(1, 1)], (None,), (1.0,), (0.0,)

        def read(self, *_: Any, **__: Any) -> Any:
            reading.set()
            release.wait(5)
            calls.append("read")
            return np.zeros((1, 1, 1), np.float32)

        def close(self) -> None:
            calls.append("close")

    reader = geotiff._Reader(File())
    reads = threading.Thread(target=reader.read, args=([0], Selection(0, 1), Selection(0, 1)))
    closes = threading.Thread(target=reader.close)
    reads.start()
    assert reading.wait(5)
    closes.start()
    closes.join(0.05)
    release.set()
    for thread in (reads, closes):
        thread.join(5)
    assert calls == ["read", "close"]


def test_error_of_gdal_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise rasterio.errors.RasterioIOError("no space left on device")

    monkeypatch.setattr("rasterio.shutil.copy", refuse)
    with pytest.raises(CCNetError, match="no space left"), open_cube(tmp_path / "c.tif", 20, 24) as writer:
        writer.write(0, cube_of())
    assert not names(tmp_path)
