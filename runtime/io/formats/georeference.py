"""The georeference of a frame: where on the earth its pixels lie, read with rasterio (GDAL) for the cube's file."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccnet.contract import CCNetError
from ccnet.runtime.io.files import native_messages, optional_module

_DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}
"""Suffix of a frame → GDAL's driver."""

_WORLD_FILES = {"JPEG": ".jgw", "PNG": ".pgw", "BMP": ".bpw"}
"""Driver → suffix of a frame's world file, which may also be ``.wld``; a TIFF has its georeference inside."""

_ORIENTATION = 274
"""TIFF's tag of a picture's orientation; 1 is upright."""


@dataclass(frozen=True, kw_only=True)
class Georeference:
    """The coordinate system of a picture and the map of its pixels into it.

    Attributes:
        crs: Coordinate reference system as WKT; empty where the picture names none.
        transform: a, b, c, d, e, f: pixel corners at column i and row j lie at x = a·i + b·j + c, y = d·i + e·j + f.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]

    @property
    def north_up(self) -> bool:
        """True if rows and columns run along the axes of the coordinate system."""
        return self.transform[1] == self.transform[3] == 0

    def coordinate_system(self) -> Any:
        """Return the coordinate reference system as rasterio's CRS; None where the picture names none."""
        return optional_module("rasterio.crs", "geo").CRS.from_wkt(self.crs) if self.crs else None


def read_georeference(path: Path, height: int, width: int) -> Georeference | None:
    """Read the georeference of a frame.

    Args:
        path: The frame's file: TIFF, or JPEG, PNG or BMP with a world file.
        height: Rows of the frame as it is reconstructed.
        width: Columns of the frame as it is reconstructed.

    Returns:
        The georeference; None where the frame has none, is turned by its EXIF orientation, or rasterio is missing.
    """
    if (driver := _DRIVERS.get(path.suffix.lower())) is None:
        return None
    world_files = [path.with_suffix(end) for end in (".wld", _WORLD_FILES.get(driver, ".wld"))]
    if driver != "GTiff" and not any(file.is_file() for file in world_files):
        return None
    try:
        rasterio = optional_module("rasterio", "geo")
    except CCNetError:
        return None
    errors = optional_module("rasterio.errors", "geo")
    try:
        with rasterio.Env(), open_raster(path, driver) as file:
            a, b, c, d, e, f = (float(value) for value in file.transform[:6])
            turned = file.shape != (height, width) or _orientation(path) != 1
            if turned or (a, b, c, d, e, f) == (1, 0, 0, 0, 1, 0):
                return None
            return Georeference(crs=_as_wkt(lambda: file.crs), transform=(a, b, c, d, e, f))
    except (errors.RasterioError, OSError):
        return None  # a frame that Pillow reads and GDAL does not has no georeference that GDAL knows


def envi_fields(georeference: Georeference) -> dict[str, str]:
    """Return the fields of an ENVI header; none where the picture is turned, which ENVI cannot say."""
    a, _, c, _, e, f = georeference.transform
    if not (georeference.north_up and a > 0 > e):
        return {}
    name, end, text = "Arbitrary", "", ""
    if (crs := georeference.coordinate_system()) is not None:
        text = _as_wkt(lambda: crs, version="WKT1_ESRI")
        if utm := re.search(r"UTM_Zone_(\d+)([NS])\"", text):
            name, end = "UTM", f", {utm[1]}, {'North' if utm[2] == 'N' else 'South'}, units=Meters"
        elif crs.is_geographic:
            name, end = "Geographic Lat/Lon", ", units=Degrees"
    fields = {"map info": f"{{{name}, 1, 1, {c!r}, {f!r}, {a!r}, {-e!r}{end}}}"}
    return {**fields, "coordinate system string": f"{{{text}}}"} if text else fields


def _as_wkt(read_crs: Callable[[], Any], **version: str) -> str:
    """Return the WKT of a coordinate reference system; empty for none, or where this version of WKT cannot say it."""
    try:
        with optional_module("rasterio", "geo").Env():  # which keeps PROJ's messages from the terminal
            crs = read_crs()
            return str(crs.to_wkt(**version)) if crs else ""
    except optional_module("rasterio.errors", "geo").CRSError:
        return ""


def open_raster(path: Path, driver: str) -> Any:
    """Open a picture for reading by rasterio, without a warning where it has no georeference.

    Args:
        path: The file; links stay as they are.
        driver: GDAL's driver.

    Returns:
        The open file, to be closed by the caller.
    """
    rasterio = optional_module("rasterio", "geo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optional_module("rasterio.errors", "geo").NotGeoreferencedWarning)
        with native_messages():  # rasterio prints a traceback for a message of GDAL's that is not UTF-8
            return rasterio.open(os.path.abspath(path), driver=driver)  # noqa: PTH100 - links stay as they are


def _orientation(path: Path) -> int:
    with optional_module("PIL.Image").open(path) as image:
        return int(image.getexif().get(_ORIENTATION, 1))
