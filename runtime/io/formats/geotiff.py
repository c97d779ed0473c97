"""Cloud-Optimised GeoTIFF: tiles of all bands with overviews, for GDAL, QGIS and EnMAP-Box, by rasterio.

Each band has its wavelength twice: in GDAL's domain IMAGERY in µm, and as ``wavelength`` in nm, which EnMAP-Box reads.

Legend: a cube is (31, H, W) float32; wavelengths in nm.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError, hidden_path
from ccnet.runtime.io.files import optional_module

from .cube_checks import BAND_COUNT, FWHM_NM, SOURCE_KEY, check_layout, check_wavelengths
from .cube_writer import Array, CubeWriter, PartWriter, replace_when_complete, write_errors
from .georeference import Georeference
from .mapped_cube import MappedCube, Selection

_BLOCK_PX = 128
"""Side of a tile, which holds all bands: 2 MB before compression."""

_OPTIONS = {
    "BLOCKSIZE": _BLOCK_PX,
    "COMPRESS": "DEFLATE",
    "LEVEL": 1,  # level 6 takes three times as long for 2 % fewer bytes
    "PREDICTOR": "FLOATING_POINT",
    "OVERVIEW_RESAMPLING": "AVERAGE",
    "BIGTIFF": "IF_SAFER",
    "NUM_THREADS": "ALL_CPUS",
}

_NM_OF_UNIT = {"nm": 1.0, "nanometers": 1.0, "nanometer": 1.0, "um": 1e3, "µm": 1e3, "micrometers": 1e3}


# ---------------------------------------------------------------------------------------------------------------------
# Writing


@contextmanager
def open_geotiff(
    path: Path, height: int, width: int, metadata: Mapping[str, str], georeference: Georeference | None = None
) -> Iterator[CubeWriter]:
    """Open a cube for writing, as Cloud-Optimised GeoTIFF.

    GDAL makes the file from a whole, uncompressed one, which lies beside it under a hidden name until then.

    Args:
        path: The ``.tif``.
        height: Rows of the cube.
        width: Columns of the cube.
        metadata: Tags of the file.
        georeference: Where on the earth the cube lies, if that is known.

    Yields:
        The writer.
    """
    staging = hidden_path(path)
    try:
        with replace_when_complete(path) as partial:
            with write_errors(path), _gdal_errors():
                file = _create(staging, height, width, metadata, georeference)

            def put(band: int, top: int, left: int, rows: Array) -> None:
                window = (top, top + rows.shape[0]), (left, left + rows.shape[1])
                with _gdal_errors():
                    file.write(rows, band + 1, window=window)

            try:
                writer = PartWriter(path, height, width, put)
                yield writer
                writer.check_complete()
            finally:
                with write_errors(path), _gdal_errors():
                    file.close()
            with write_errors(path), _gdal_errors():
                _publish(staging, partial)
    finally:
        for left in path.parent.glob(f"{staging.stem}*"):
            left.unlink(missing_ok=True)


def _create(path: Path, height: int, width: int, metadata: Mapping[str, str], georeference: Georeference | None) -> Any:
    rasterio = optional_module("rasterio", "geo")
    place: dict[str, Any] = {}
    if georeference:
        place["transform"] = rasterio.Affine(*georeference.transform)
        if georeference.crs:
            place["crs"] = rasterio.crs.CRS.from_wkt(georeference.crs)
    size = {"height": height, "width": width, "count": BAND_COUNT, "dtype": "float32"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optional_module("rasterio.errors", "geo").NotGeoreferencedWarning)
        name = os.path.abspath(path)  # noqa: PTH100 - links stay as they are
        file = rasterio.open(name, "w", driver="GTiff", interleave="band", BIGTIFF="IF_SAFER", **size, **place)
    file.update_tags(**{key.replace(" ", "_"): value for key, value in metadata.items()})
    file.descriptions = tuple(f"{nm} nm" for nm in BANDS_NM)
    for band, nm in enumerate(BANDS_NM, start=1):
        file.update_tags(band, wavelength=f"{nm}", wavelength_units="Nanometers", fwhm=f"{FWHM_NM:g}")
        file.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{nm / 1e3:.3f}", FWHM_UM=f"{FWHM_NM / 1e3:.3f}")
    return file


def _publish(staging: Path, target: Path) -> None:
    """Copy a plain GeoTIFF to a Cloud-Optimised one; OSError if the copy's end is not that of the original."""
    optional_module("rasterio.shutil", "geo").copy(str(staging), str(target), driver="COG", **_OPTIONS)
    ends = []
    for path in (staging, target):
        with _open(path) as file:
            row, column = file.height - 1, file.width - 1
            window = ((row, row + 1), (column, column + 1))
            ends.append(file.read(window=window).tobytes())
    if ends[0] != ends[1]:
        raise OSError("the disk kept only a part of it")


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def read_geotiff(path: Path) -> npt.NDArray[Any]:
    """Return a cube (31, H, W) of any float dtype; CCNetError where the file is not a cube of the 31 bands."""
    with map_geotiff(path) as cube:
        check_layout(path, cube.shape, np.dtype(np.float32))
        check_wavelengths(path, cube.wavelengths)
        _, height, width = cube.shape
        return cube.read(range(BAND_COUNT), Selection(0, height), Selection(0, width))


def map_geotiff(path: Path) -> MappedCube:
    """Open a GeoTIFF of any bands with a wavelength each; CCNetError where it is none. Values are read on demand."""
    with _gdal_errors():
        file = _open(path)
    shape, dtype = (file.count, *file.shape), np.dtype(file.dtypes[0])
    try:
        if dtype.kind not in "fiu":
            raise CCNetError(f"{path}: holds {dtype}, expected real numbers; convert it")
        return MappedCube(shape, _wavelengths(path, file), _Reader(file).read, file.close)
    except BaseException:
        file.close()
        raise


def geotiff_source(path: Path) -> str:
    """Return the source that a GeoTIFF names; empty if it names none."""
    with _gdal_errors(), _open(path) as file:
        return str(file.tags().get(SOURCE_KEY.replace(" ", "_"), ""))


def _open(path: Path) -> Any:
    rasterio = optional_module("rasterio", "geo")
    with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO", GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        warnings.simplefilter("ignore", optional_module("rasterio.errors", "geo").NotGeoreferencedWarning)
        return rasterio.open(os.path.abspath(path), driver="GTiff")  # noqa: PTH100 - links stay as they are


class _Reader:
    """Reads parts of an open GeoTIFF, at full resolution or from its overviews; GDAL's files are for one thread."""

    def __init__(self, file: Any) -> None:
        self._file, self._lock = file, threading.Lock()

    def read(self, bands: Sequence[int], rows: Selection, columns: Selection) -> Array:
        with self._lock, _gdal_errors():
            values = self._file.read(
                [band + 1 for band in bands],
                window=((rows.start, rows.stop), (columns.start, columns.stop)),
                out_shape=(len(bands), len(rows), len(columns)),
                out_dtype="float32",
            )
        return np.asarray(values, np.float32)


def _wavelengths(path: Path, file: Any) -> npt.NDArray[np.float64]:
    """Return the wavelength of each band in nm, from GDAL's domain IMAGERY, tags or names; CCNetError without."""
    found = [_wavelength(file, band) for band in range(1, file.count + 1)]
    if missing := sum(nm is None for nm in found):
        raise CCNetError(
            f"{path}: {missing} of {file.count} bands have no wavelength, expected CENTRAL_WAVELENGTH_UM or wavelength"
            " for each; add it"
        )
    return np.array(found, np.float64)


def _wavelength(file: Any, band: int) -> float | None:
    if text := file.tags(band, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM"):
        return round(1e3 * float(text), 6)
    tags = {key.lower(): value for key, value in file.tags(band).items()}
    if text := tags.get("wavelength"):
        unit = tags.get("wavelength_units", tags.get("wavelength_unit", "nm")).lower()
        return float(text) * _NM_OF_UNIT.get(unit, 1.0)
    found = re.match(r"\s*([\d.]+)\s*(nm|nanometers|um|µm|micrometers)\b", file.descriptions[band - 1] or "", re.I)
    return float(found[1]) * _NM_OF_UNIT[found[2].lower()] if found else None


@contextmanager
def _gdal_errors() -> Iterator[None]:
    """Turn errors of GDAL into OSError, which readers and writers explain."""
    errors = optional_module("rasterio.errors", "geo")
    try:
        yield
    except (errors.RasterioError, optional_module("rasterio._err", "geo").CPLE_BaseError) as error:
        raise OSError(" ".join(str(error).split())) from error
