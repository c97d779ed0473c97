"""NetCDF 4 by the CF conventions, for xarray, QGIS and climate tools, by h5netcdf.

The variable ``reflectance`` has the axes (wavelength, y, x), ``wavelength`` is its coordinate in nm, and x and y are
the centres of the pixels: of the frame's georeference, or in px from the lower left corner. A NetCDF 4 file is an HDF5
file.

Legend: a cube is (31, H, W) float32; wavelengths in nm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.io.files import optional_module

from .cube_checks import BAND_COUNT, CONTENT_KEY, FWHM_NM, SOURCE_KEY, check_wavelengths, nm_of_unit
from .cube_writer import Array, CubeWriter, PartWriter, describe_content, replace_when_complete, write_errors
from .georeference import Georeference
from .hdf5 import DeferredErrorFile, check_complete, is_complete, map_dataset, open_hdf5
from .mapped_cube import MappedCube, Selection

_VARIABLE, _GRID_MAPPING = "reflectance", "crs"

_CHUNK_ROWS, _CHUNK_COLUMNS = 64, 256

_MOST_BANDS = 1 << 16


# ---------------------------------------------------------------------------------------------------------------------
# Writing


@contextmanager
def open_netcdf(
    path: Path, height: int, width: int, metadata: Mapping[str, str], georeference: Georeference | None = None
) -> Iterator[CubeWriter]:
    """Open a cube for writing, as NetCDF 4.

    Args:
        path: The ``.nc``.
        height: Rows of the cube.
        width: Columns of the cube.
        metadata: Attributes of the file.
        georeference: Where on the earth the cube lies, if that is known.

    Yields:
        The writer.
    """
    h5netcdf, h5py = optional_module("h5netcdf", "geo"), optional_module("h5py")
    with replace_when_complete(path) as partial:
        with write_errors(path):
            disk = DeferredErrorFile(partial, "x+")
        with disk:
            with h5py.File(disk, "w", track_order=True) as hdf5:
                with h5netcdf.File(hdf5, "w") as file:
                    _create_variables(file, height, width, metadata, georeference)
                data = hdf5[_VARIABLE]  # h5netcdf's own object takes several times as long for a write

                def put(band: int, top: int, left: int, rows: Array) -> None:
                    data[band, top : top + rows.shape[0], left : left + rows.shape[1]] = rows
                    disk.check()

                writer = PartWriter(path, height, width, put)
                yield writer
                writer.check_complete()
            with write_errors(path):
                disk.check()


def _create_variables(
    file: Any, height: int, width: int, metadata: Mapping[str, str], georeference: Georeference | None
) -> None:
    file.dimensions = {"wavelength": BAND_COUNT, "y": height, "x": width}
    content = describe_content(metadata)
    file.attrs.update(Conventions="CF-1.11", title=content[:1].upper() + content[1:])
    file.attrs.update({key.replace(" ", "_"): value for key, value in metadata.items()})
    attributes = {"standard_name": "radiation_wavelength", "long_name": "centre wavelength", "units": "nm"}
    _put(file, "wavelength", ("wavelength",), np.array(BANDS_NM, float), attributes)
    _put(file, "fwhm", ("wavelength",), np.full(BAND_COUNT, FWHM_NM), {"long_name": "band width", "units": "nm"})
    if georeference is None or georeference.north_up:
        _put_axes(file, height, width, georeference)
    if georeference:
        _put_grid_mapping(file, georeference)
    chunks = (1, min(height, _CHUNK_ROWS), min(width, _CHUNK_COLUMNS))
    data = file.create_variable(_VARIABLE, ("wavelength", "y", "x"), "<f4", chunks=chunks)
    data.attrs.update(long_name=metadata.get(CONTENT_KEY, "reflectance"), units="1", coordinates="fwhm")
    if georeference:
        data.attrs["grid_mapping"] = _GRID_MAPPING


def _put(file: Any, name: str, dimensions: tuple[str, ...], values: Any, attributes: Mapping[str, Any]) -> None:
    file.create_variable(name, dimensions, np.asarray(values).dtype, data=values).attrs.update(attributes)


def _put_axes(file: Any, height: int, width: int, georeference: Georeference | None) -> None:
    """Add the coordinates of columns and rows; y descends, which readers show upright."""
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    if georeference is None:
        # Without units: GDAL turns a picture over whose axes have the unit 1
        _put(file, "x", ("x",), columns, {"axis": "X", "long_name": "column, px"})
        _put(file, "y", ("y",), height - rows, {"axis": "Y", "long_name": "row from below, px"})
        return
    a, _, c, _, e, f = georeference.transform
    x, y = _axis_attributes(georeference)
    _put(file, "x", ("x",), a * columns + c, {"axis": "X", **x})
    _put(file, "y", ("y",), e * rows + f, {"axis": "Y", **y})


def _axis_attributes(georeference: Georeference) -> tuple[dict[str, str], dict[str, str]]:
    crs = georeference.coordinate_system()
    if crs is not None and crs.is_geographic:
        return (
            {"standard_name": "longitude", "units": "degrees_east"},
            {"standard_name": "latitude", "units": "degrees_north"},
        )
    unit = {"metre": "m", "meter": "m"}.get(crs.linear_units.lower(), crs.linear_units) if crs is not None else "m"
    return (
        {"standard_name": "projection_x_coordinate", "units": unit},
        {"standard_name": "projection_y_coordinate", "units": unit},
    )


def _put_grid_mapping(file: Any, georeference: Georeference) -> None:
    a, b, c, d, e, f = georeference.transform
    variable = file.create_variable(_GRID_MAPPING, (), "i4", data=np.int32(0))
    variable.attrs["GeoTransform"] = " ".join(repr(value) for value in (c, a, b, f, d, e))
    if georeference.crs:
        variable.attrs["crs_wkt"] = variable.attrs["spatial_ref"] = georeference.crs


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def read_netcdf(path: Path) -> npt.NDArray[Any]:
    """Return a cube (31, H, W); CCNetError where the file does not hold a whole cube of the 31 bands in order."""
    with map_netcdf(path) as cube:
        check_wavelengths(path, cube.wavelengths)
        _, height, width = cube.shape
        return cube.read(range(BAND_COUNT), Selection(0, height), Selection(0, width))


def map_netcdf(path: Path) -> MappedCube:
    """Open the cube of a NetCDF 4 file: its only variable of three axes, of which one has wavelengths."""
    file = open_hdf5(path)
    try:
        data, axis, nm = _find_cube(path, file)
        check_complete(path, data)
        return _as_reflectance(map_dataset(data, axis, nm, file.close), data.attrs)
    except BaseException:
        file.close()
        raise


def netcdf_source(path: Path) -> str:
    """Return the source that a NetCDF 4 file names; empty if it names none."""
    with open_hdf5(path) as file:
        return str(file.attrs.get(SOURCE_KEY.replace(" ", "_"), ""))


def _find_cube(path: Path, file: Any) -> tuple[Any, int, npt.NDArray[np.float64]]:
    """Return the dataset of the cube, the axis of its bands and their wavelengths in nm."""
    h5py = optional_module("h5py")
    found = []
    for name in file:
        data = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        if not isinstance(data, h5py.Dataset) or data.ndim != 3 or data.dtype.kind != "f":
            continue
        for axis in range(3):
            if (nm := _axis_wavelengths(data, axis)) is not None:
                found.append((data, axis, nm))
    if len(found) != 1 or found[0][0].external or found[0][0].is_virtual:
        raise CCNetError(
            f"{path}: holds {sorted(file)[:8]}, expected one float variable with an axis of wavelengths; convert it"
        )
    return found[0]


def _axis_wavelengths(data: Any, axis: int) -> npt.NDArray[np.float64] | None:
    """Return the wavelengths of an axis in nm; None if its coordinate has another unit or meaning."""
    for scale in data.dims[axis].values():
        unit = scale.attrs.get("units", b"")
        factor = nm_of_unit(unit.decode() if isinstance(unit, bytes) else str(unit))
        name = scale.name.rpartition("/")[2].lower()
        meaning = scale.attrs.get("standard_name", b"")
        meaning = meaning.decode() if isinstance(meaning, bytes) else str(meaning)
        if factor and ("wavelength" in meaning or name.startswith("wave")) and _is_list(scale, data.shape[axis]):
            return np.asarray(scale[()], np.float64) * factor
    return None


def _is_list(scale: Any, length: int) -> bool:
    """Return whether a coordinate holds so many numbers, in this very file; it can claim any length without values."""
    plain = scale.shape == (length,) and length <= _MOST_BANDS and scale.dtype.kind in "fiu"
    return plain and not scale.external and not scale.is_virtual and is_complete(scale)


def _as_reflectance(cube: MappedCube, attributes: Mapping[str, Any]) -> MappedCube:
    """Return a cube with CF's scale_factor and add_offset applied, and NaN for its _FillValue and missing_value."""
    fills = [np.ravel(attributes[name]) for name in ("_FillValue", "missing_value") if name in attributes]
    with np.errstate(over="ignore"):  # a fill of a double can be infinite as float32, and so are its pixels
        missing = np.concatenate([np.empty(0), *fills]).astype(np.float32)
    scale, offset = (
        float(np.ravel(attributes.get(name, x))[0]) for name, x in (("scale_factor", 1), ("add_offset", 0))
    )
    if not missing.size and (scale, offset) == (1, 0):
        return cube

    def read(bands: Sequence[int], rows: Selection, columns: Selection) -> Array:
        part = cube.read(bands, rows, columns)
        gaps = np.isin(part, missing)
        part *= scale
        part += offset
        part[gaps] = np.nan
        return part

    return replace(cube, read=read)
