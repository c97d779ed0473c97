"""Cloud-Optimised GeoTIFF: tiles of all bands with overviews, for GDAL, QGIS and EnMAP-Box, by rasterio.

Each band has its wavelength twice: in GDAL's domain IMAGERY in µm, and as ``wavelength`` in nm, which EnMAP-Box reads.

Legend: a cube is (31, H, W) float32; wavelengths in nm.
"""

from __future__ import annotations

import itertools
import math
import os
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

from .cube_checks import (
    BAND_COUNT,
    FWHM_NM,
    SOURCE_KEY,
    check_layout,
    check_pixels,
    check_wavelengths,
    nm_of_band_name,
    nm_of_unit,
)
from .cube_writer import Array, CubeWriter, PartWriter, replace_when_complete, write_errors
from .georeference import Georeference, open_raster
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

_MOST_PIXELS = 1 << 28
"""Most pixels of a cube that is read as a whole, 33 GB; compressed files of few bytes can say that they hold more."""


# ---------------------------------------------------------------------------------------------------------------------
# Writing


@contextmanager
def open_geotiff(
    path: Path, height: int, width: int, metadata: Mapping[str, str], georeference: Georeference | None = None
) -> Iterator[CubeWriter]:
    """Open a cube for writing, as Cloud-Optimised GeoTIFF.

    Args:
        path: The ``.tif``.
        height: Rows of the cube.
        width: Columns of the cube.
        metadata: Tags of the file.
        georeference: Where on the earth the cube lies, if that is known.

    Yields:
        The writer.
    """
    with _staged(path, (BAND_COUNT, height, width), metadata, georeference) as file:
        with write_errors(path), _gdal_errors():
            _describe_bands(file)

        def put(band: int, top: int, left: int, rows: Array) -> None:
            window = (top, top + rows.shape[0]), (left, left + rows.shape[1])
            with _gdal_errors():
                file.write(rows, band + 1, window=window)

        writer = PartWriter(path, height, width, put)
        yield writer
        writer.check_complete()


def write_layers(
    path: Path,
    layers: Array,
    names: Sequence[str],
    metadata: Mapping[str, str],
    georeference: Georeference | None = None,
) -> None:
    """Write maps of one place, such as indices, as Cloud-Optimised GeoTIFF.

    Args:
        path: The ``.tif``.
        layers: Values (K, H, W) float32.
        names: Name of each layer.
        metadata: Tags of the file.
        georeference: Where on the earth the maps lie, if that is known.

    Raises:
        CCNetError: The file cannot be written.
    """
    with _staged(path, layers.shape, metadata, georeference) as file, write_errors(path), _gdal_errors():
        file.descriptions = tuple(names)
        file.write(layers)


@contextmanager
def _staged(
    path: Path, shape: tuple[int, ...], metadata: Mapping[str, str], georeference: Georeference | None
) -> Iterator[Any]:
    """Open a plain GeoTIFF of a shape (K, H, W), and make the Cloud-Optimised one of it when it is complete.

    GDAL makes that from a whole, uncompressed file, which lies beside it under a hidden name until then.

    Args:
        path: The ``.tif``.
        shape: Layers, rows and columns.
        metadata: Tags of the file.
        georeference: Where on the earth the layers lie, if that is known.

    Yields:
        The plain file, of rasterio, to write to.
    """
    staging = hidden_path(path)
    try:
        with replace_when_complete(path) as partial:
            with write_errors(path), _gdal_errors():
                file = _create(staging, shape, metadata, georeference)
            try:
                yield file
            finally:
                with write_errors(path), _gdal_errors():
                    file.close()
            with write_errors(path), _gdal_errors():
                _publish(staging, partial)
    finally:
        for left in path.parent.glob(f"{staging.stem}*"):
            left.unlink(missing_ok=True)


def _create(path: Path, shape: tuple[int, ...], metadata: Mapping[str, str], georeference: Georeference | None) -> Any:
    rasterio = optional_module("rasterio", "geo")
    place: dict[str, Any] = {}
    if georeference:
        place["transform"] = rasterio.Affine(*georeference.transform)
        if georeference.crs:
            place["crs"] = georeference.coordinate_system()
    count, height, width = shape
    size = {"height": height, "width": width, "count": count, "dtype": "float32"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optional_module("rasterio.errors", "geo").NotGeoreferencedWarning)
        name = os.path.abspath(path)  # noqa: PTH100 - links stay as they are
        file = rasterio.open(name, "w", driver="GTiff", interleave="band", BIGTIFF="IF_SAFER", **size, **place)
    file.update_tags(**{key.replace(" ", "_"): value for key, value in metadata.items()})
    return file


def _describe_bands(file: Any) -> None:
    """Give each of the 31 bands its name and wavelength."""
    file.descriptions = tuple(f"{nm} nm" for nm in BANDS_NM)
    for band, nm in enumerate(BANDS_NM, start=1):
        file.update_tags(band, wavelength=f"{nm}", wavelength_units="Nanometers", fwhm=f"{FWHM_NM:g}")
        file.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{nm / 1e3:.3f}", FWHM_UM=f"{FWHM_NM / 1e3:.3f}")


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


def read_geotiff(path: Path, max_pixels: float = _MOST_PIXELS) -> npt.NDArray[Any]:
    """Return a cube (31, H, W) of reflectance; CCNetError where the file is not a cube of the 31 bands."""
    with map_geotiff(path) as cube:
        check_layout(path, cube.shape, np.dtype(np.float32))  # the file's type is checked: values are scaled to float32
        check_wavelengths(path, cube.wavelengths)
        _, height, width = cube.shape
        check_pixels(path, height * width, max_pixels)
        return cube.read(range(BAND_COUNT), Selection(0, height), Selection(0, width))


def map_geotiff(path: Path) -> MappedCube:
    """Open a GeoTIFF of any bands with a wavelength each; CCNetError where it is none. Values are read on demand."""
    with _gdal_errors():
        file = _open(path)
    try:
        with _gdal_errors():
            wavelengths = _check_cube(path, file)
        reader = _Reader(file)
        return MappedCube((file.count, *file.shape), wavelengths, reader.read, reader.close, reader.read_means)
    except BaseException:
        file.close()
        raise


def _check_cube(path: Path, file: Any) -> npt.NDArray[np.float64]:
    """Return the wavelengths in nm; CCNetError unless the file holds a whole cube of numbers that are reflectance."""
    dtype = np.dtype(file.dtypes[0])
    if dtype.kind not in "fiu":
        raise CCNetError(f"{path}: holds {dtype}, expected real numbers; convert it")
    wavelengths = _wavelengths(path, file)
    if dtype.kind != "f" and any(scale == 1 for scale in file.scales):
        raise CCNetError(
            f"{path}: holds {dtype} without a scale, expected float or the scale to reflectance in each band; set it,"
            " for example with gdal_edit.py -scale 0.0001"
        )
    if not _is_complete(file):
        raise CCNetError(f"{path}: truncated, some of its cube was never written, expected all of it; get it again")
    return wavelengths


def _is_complete(file: Any) -> bool:
    """Return whether each block has data of its own in the file: GDAL reads zeros where there is none."""
    pixel_interleaved = str(file.interleaving).lower().endswith("pixel")
    total, size = 0, os.stat(file.name).st_size  # noqa: PTH116 - links stay as they are
    for band in [1] if pixel_interleaved else range(1, file.count + 1):
        height, width = file.block_shapes[band - 1]
        blocks = itertools.product(range(math.ceil(file.height / height)), range(math.ceil(file.width / width)))
        for row, column in blocks:
            total += int(file.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=band) or 0) or size + 1
            if total > size:
                return False
    return True


def geotiff_source(path: Path) -> str:
    """Return the source that a GeoTIFF names; empty if it names none."""
    with _gdal_errors(), _open(path) as file:
        return str(file.tags().get(SOURCE_KEY.replace(" ", "_"), ""))


def _open(path: Path) -> Any:
    rasterio = optional_module("rasterio", "geo")
    with rasterio.Env(GDAL_PAM_ENABLED="NO", GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        return open_raster(path, "GTiff")


class _Reader:
    """Reads parts of an open GeoTIFF as reflectance, NaN where it has no data; GDAL's files are for one thread."""

    def __init__(self, file: Any) -> None:
        self._file, self._lock = file, threading.Lock()
        self._rows = max(file.block_shapes[0][0], _BLOCK_PX)

    def read(self, bands: Sequence[int], rows: Selection, columns: Selection) -> Array:
        """Return the selected pixels."""
        part = np.empty((len(bands), len(rows), len(columns)), np.float32)
        # Runs of rows, thinned in memory: GDAL would answer a thinned request with means
        count = len(rows) if rows.step == columns.step == 1 else max(1, self._rows // rows.step)
        for at in range(0, len(rows), count):
            top = rows.start + at * rows.step
            bottom = top + (min(count, len(rows) - at) - 1) * rows.step + 1
            run = self._values(bands, Selection(top, bottom), columns)
            part[:, at : at + count] = run[:, :: rows.step, :: columns.step]
        return part

    def read_means(self, bands: Sequence[int], rows: Selection, columns: Selection) -> Array:
        """Return the selected pixels, for pictures: from an overview where the file has it, so as means of pixels."""
        return self._values(bands, rows, columns, out_shape=(len(bands), len(rows), len(columns)))

    def close(self) -> None:
        """Close the file once no thread reads it."""
        with self._lock:
            self._file.close()

    def _values(self, bands: Sequence[int], rows: Selection, columns: Selection, **options: Any) -> Array:
        window = (rows.start, rows.stop), (columns.start, columns.stop)
        with self._lock, _gdal_errors():
            stored = self._file.read([band + 1 for band in bands], window=window, **options)
            facts = [
                [each[band] for band in bands]
                for each in (self._file.nodatavals, self._file.scales, self._file.offsets)
            ]
        values = stored.astype(np.float32)
        for plane, raw, missing, scale, offset in zip(values, stored, *facts, strict=True):
            if (scale, offset) != (1, 0):
                plane *= scale
                plane += offset
            if missing is not None:
                plane[raw == (np.array(missing).astype(raw.dtype) if raw.dtype.kind == "f" else missing)] = np.nan
        return values


def _wavelengths(path: Path, file: Any) -> npt.NDArray[np.float64]:
    """Return the wavelength of each band in nm, from GDAL's domain IMAGERY, tags or names; CCNetError without."""
    found = [_wavelength(path, file, band) for band in range(1, file.count + 1)]
    if missing := sum(nm is None for nm in found):
        raise CCNetError(
            f"{path}: {missing} of {file.count} bands have no wavelength, expected CENTRAL_WAVELENGTH_UM or wavelength"
            " for each; add it"
        )
    return np.array(found, np.float64)


def _wavelength(path: Path, file: Any, band: int) -> float | None:
    if text := file.tags(band, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM"):
        return round(1e3 * float(text), 6)
    tags = {key.lower(): value for key, value in file.tags(band).items()}
    if text := tags.get("wavelength"):
        unit = tags.get("wavelength_units", tags.get("wavelength_unit", "nm"))
        if (nm := nm_of_unit(unit)) is None:
            raise CCNetError(f"{path}: wavelength_units are {unit[:40]!r}, expected nm or µm; convert them")
        return float(text) * nm
    return nm_of_band_name(file.descriptions[band - 1] or "")


@contextmanager
def _gdal_errors() -> Iterator[None]:
    """Turn errors of GDAL into OSError, which readers and writers explain, and its warnings into lines of the log."""
    errors = optional_module("rasterio.errors", "geo")
    try:
        with optional_module("rasterio", "geo").Env():
            yield
    except (errors.RasterioError, optional_module("rasterio._err", "geo").CPLE_BaseError) as error:
        raise OSError(" ".join(str(error).split())) from error
