"""Cubes on disk: open one for writing part by part, read one, or map one; the path's suffix chooses the format.

Legend: a cube is (31, H, W) float32, bands ascending from 400 to 700 nm, reflectance-like values. Formats, by suffix:

- ``.hdr``: ENVI, a text header beside a band-sequential ``.img`` (``envi.py``);
- ``.mat``: MATLAB 7.3 (HDF5) as in NTIRE's data, ``cube`` and ``bands`` (``mat.py``);
- ``.npy``: the bare array, without metadata (``npy.py``);
- ``.tif``, ``.tiff``: Cloud-Optimised GeoTIFF (``geotiff.py``), with the extra ``geo``;
- ``.nc``: NetCDF 4 by the CF conventions (``netcdf.py``), with the extra ``geo``.

A cube appears under its name when it is complete, or not at all.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, decode_errors_as, make_folder

from .files import as_text, read_head
from .formats.cube_checks import BAND_COUNT, EXPECTED_CUBE, check_finite
from .formats.cube_writer import Array, CubeWriter, write_errors
from .formats.envi import envi_source, map_envi, open_envi, read_envi
from .formats.georeference import Georeference
from .formats.geotiff import geotiff_source, map_geotiff, open_geotiff, read_geotiff
from .formats.mapped_cube import MappedCube
from .formats.mat import map_mat, mat_source, open_mat, read_mat
from .formats.netcdf import map_netcdf, netcdf_source, open_netcdf, read_netcdf
from .formats.npy import map_cube_npy, open_npy, read_npy

__all__ = [
    "CubeFormat",
    "CubeWriter",
    "MappedCube",
    "as_field",
    "as_fields",
    "cube_files",
    "map_cube",
    "open_cube",
    "read_cube",
    "recorded_source",
]

CubeFormat = Literal["hdr", "mat", "npy", "tif", "nc"]
"""Suffix of a cube's file, without the dot: ENVI, MATLAB/NTIRE, numpy, GeoTIFF or NetCDF."""


class _Format(NamedTuple):
    """The functions of a file format."""

    open: Callable[..., AbstractContextManager[CubeWriter]]
    read: Callable[[Path], npt.NDArray[Any]]
    map: Callable[[Path], MappedCube]
    source: Callable[[Path], str] | None = None
    """Reads which source a cube is from; None for a format without metadata."""
    located: bool = False
    """True if ``open`` takes a georeference."""
    gaps: bool = False
    """True if ``read`` checks its values itself, and gives NaN where the file says that it has no data."""
    copies: int = 1
    """Copies of the values that are on the disk while a cube is written."""


_GEOTIFF = _Format(open_geotiff, read_geotiff, map_geotiff, geotiff_source, located=True, copies=2)
_FORMATS = {
    ".hdr": _Format(open_envi, read_envi, map_envi, envi_source, located=True, gaps=True),
    ".mat": _Format(open_mat, read_mat, map_mat, mat_source),
    ".npy": _Format(open_npy, read_npy, map_cube_npy),
    ".tif": _GEOTIFF,
    ".tiff": _GEOTIFF,
    ".nc": _Format(open_netcdf, read_netcdf, map_netcdf, netcdf_source, located=True),
}


def open_cube(
    path: str | Path,
    height: int,
    width: int,
    metadata: Mapping[str, str] | None = None,
    georeference: Georeference | None = None,
) -> AbstractContextManager[CubeWriter]:
    """Open a cube (31, height, width) for writing.

    In the ``with`` block all data goes to a hidden file beside the target, which takes the target's name at the end.
    Any exception, or a missing row, leaves the target untouched. This call itself raises CCNetError where the suffix is
    unknown, the folder cannot be made, a folder has the target's name, or the disk has too little space.

    Args:
        path: The file, .hdr, .mat, .npy, .tif or .nc; it is checked in this call, before the block starts.
        height: Rows of the cube.
        width: Columns of the cube.
        metadata: Fields of the file; ``.npy`` has no place for them.
        georeference: Where on the earth the cube lies, for ENVI, GeoTIFF and NetCDF; the others have no place for it.

    Returns:
        A context manager that gives the writer.

    Raises:
        ValueError: The cube has no pixel.
    """
    if min(height, width) < 1:
        raise ValueError(f"cube is {width}×{height} px, expected at least 1×1")
    path = Path(path)
    format = _FORMATS[_suffix(path)]
    with write_errors(path):
        _check_target(path, format.copies * 4 * BAND_COUNT * height * width)
    located = (georeference,) if format.located else ()
    return format.open(path, height, width, as_fields(metadata or {}), *located)


def read_cube(path: str | Path) -> Array:
    """Read a cube file.

    Args:
        path: ENVI (.hdr) in any layout, MATLAB 7.3 or 5 (.mat) with ``cube`` and ``bands``, .npy of any float type,
            GeoTIFF (.tif) with a wavelength for each band, or NetCDF 4 (.nc) with a coordinate of wavelengths.

    Returns:
        (31, H, W) float32, C-contiguous; NaN in the pixels and bands that an ENVI header's ``data ignore value`` and
        ``bbl`` mark, which a warning in the log counts.

    Raises:
        CCNetError: The file is missing, damaged, or not a finite cube of the 31 bands in ascending order.
    """
    path = Path(path)
    format = _FORMATS[_suffix(path)]
    read_head(path, EXPECTED_CUBE)
    with decode_errors_as(path, EXPECTED_CUBE), np.errstate(all="ignore"):
        cube = np.ascontiguousarray(format.read(path), np.float32)
    if not format.gaps:
        check_finite(path, cube)
    return cube


def map_cube(path: str | Path) -> MappedCube:
    """Open a cube file whose values are read on demand.

    Args:
        path: A file as ``read_cube`` takes it; ENVI, GeoTIFF and NetCDF may have other bands than the 31.

    Returns:
        The open cube, to be closed by the caller. Its values are not checked: they may be NaN.

    Raises:
        CCNetError: The file is missing, damaged, or not a cube.
    """
    path = Path(path)
    mapper = _FORMATS[_suffix(path)].map
    read_head(path, EXPECTED_CUBE)
    with decode_errors_as(path, EXPECTED_CUBE):
        return mapper(path)


def cube_files(path: Path) -> list[Path]:
    """Return the files of a cube, the one that readers look for last."""
    return [path.with_suffix(".img"), path] if path.suffix.lower() == ".hdr" else [path]


def as_field(value: str) -> str:
    """Return a value of metadata as ``open_cube`` stores it: one line of text without braces."""
    return re.sub(r"[\s{}\0]+", " ", as_text(value)).strip()


def recorded_source(path: Path) -> str | None:
    """Return which source a cube is from by its metadata.

    Args:
        path: A file of any of the formats; it may be damaged, or somebody else's.

    Returns:
        The source as ``open_cube`` stored it; empty if the file names none; None if its format has no metadata.
    """
    reader = _FORMATS[_suffix(path)].source
    if reader is None:
        return None
    try:
        with decode_errors_as(path, EXPECTED_CUBE):
            return reader(path)
    except CCNetError:
        return ""


def _suffix(path: Path) -> str:
    if (suffix := path.suffix.lower()) not in _FORMATS:
        raise CCNetError(f"{path}: unknown cube format {suffix!r}, expected one of {', '.join(_FORMATS)}")
    return suffix


def _check_target(path: Path, need: int) -> None:
    try:
        path.lstat()
    except OSError:
        pass  # most often there is no file yet
    except ValueError as error:
        raise CCNetError(f"{path}: no file can have that name ({error}); choose another") from error
    for target in cube_files(path):
        if target.is_dir():
            raise CCNetError(f"{target}: is a directory, expected a file name for the cube")
    if path.suffix.lower() == ".hdr" and path.with_suffix(".img").exists() and not path.exists():
        raise CCNetError(f"{path.with_suffix('.img')}: exists without {path.name}, so it is not a cube's and is kept")
    make_folder(path.parent)
    if need > (free := shutil.disk_usage(path.parent).free):
        raise CCNetError(f"{path}: the cube takes {need / 1e9:.3g} GB, the disk has {free / 1e9:.3g} free; make room")


def as_fields(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as files store it, in no format to its harm: prefixed plain keys, values as of ``as_field``."""
    return {
        "ccnet " + re.sub(r"[^a-z0-9]+", " ", key.lower()).strip(): as_field(value) for key, value in metadata.items()
    }
