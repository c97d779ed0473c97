"""MATLAB files of one cube. The one reader and writer, for results and for data sets.

As in NTIRE's data, ``cube`` is (H, W, 31) to MATLAB and ``bands`` has its wavelengths in nm. MATLAB 7.3 files are HDF5,
where h5py sees the axes in reverse, (31, W, H). MATLAB 5 files (``save -v6`` and ``-v7``) are only read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.io.files import optional_module

from .cube_checks import BAND_COUNT, SOURCE_KEY, check_layout, check_pixels, check_wavelengths
from .cube_writer import Array, CubeWriter, PartWriter, replace_when_complete, write_errors
from .hdf5 import DeferredErrorFile, check_complete, map_dataset, open_hdf5
from .mapped_cube import MappedCube, map_array
from .matlab5 import MAGIC, read_arrays

Values = npt.NDArray[Any]

_MAX_MATLAB5_BYTES = 1 << 32  # MATLAB 5 stores sizes in 32 bits

_USERBLOCK_BYTES = 512
_USERBLOCK = b"MATLAB 7.3 MAT-file, Platform: ccnet, HDF5 schema 1.00 .".ljust(116) + bytes(8) + b"\0\x02IM"


def read_mat(path: Path, *, bands_required: bool = True, max_pixels: float = math.inf) -> Values:
    """Read a cube of a MATLAB 7.3 or MATLAB 5 file.

    Raises CCNetError where the file itself does not hold a whole cube of the 31 bands in ascending order. A damaged
    file can raise any other exception: call it within ``decode_errors_as``.

    Args:
        path: The file.
        bands_required: Refuse a file without ``bands``; otherwise its cube is taken to have the 31 bands in order.
        max_pixels: Largest H·W, checked before MATLAB 7.3 values are read.

    Returns:
        (31, H, W) float32 from MATLAB 7.3, any float dtype from MATLAB 5; not contiguous.
    """
    return (_read_matlab5 if _is_matlab5(path) else _read_matlab73)(path, bands_required, max_pixels)


def map_mat(path: Path) -> MappedCube:
    """Open a cube as ``read_mat`` does; the values of MATLAB 7.3 are read on demand, those of MATLAB 5 at once."""
    if _is_matlab5(path):
        return map_array(_read_matlab5(path, True, math.inf), np.array(BANDS_NM, np.float64))
    file = open_hdf5(path)
    try:
        cube = _check_matlab73(path, file, True, math.inf)
        return map_dataset(cube, 0, np.array(BANDS_NM, np.float64), file.close, flipped=True)
    except BaseException:
        file.close()
        raise


def mat_source(path: Path) -> str:
    """Return the source that a MATLAB 7.3 cube names; empty if it names none."""
    with open_hdf5(path) as file:
        return str(_dataset(path, file, "cube").attrs.get(SOURCE_KEY, ""))


def _is_matlab5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _read_matlab73(path: Path, bands_required: bool, max_pixels: float) -> Values:
    with open_hdf5(path) as file:
        values: Values = _check_matlab73(path, file, bands_required, max_pixels).astype(np.float32)[()]
    return values.transpose(0, 2, 1)


def _check_matlab73(path: Path, file: Any, bands_required: bool, max_pixels: float) -> Any:
    """Return the dataset (31, W, H) of an open file; CCNetError where the file does not hold a whole cube."""
    cube, bands = (_dataset(path, file, name) for name in ("cube", "bands"))
    _check_names(path, file, bands_required)
    check_layout(path, cube.shape, cube.dtype, "31, W, H")
    check_pixels(path, math.prod(cube.shape[1:]), max_pixels)
    if bands is not None:
        check_wavelengths(path, bands[()] if bands.size == BAND_COUNT else np.empty(0))
    check_complete(path, cube)
    return cube


def _check_names(path: Path, names: Any, bands_required: bool) -> None:
    expected = ("cube", "bands") if bands_required else ("cube",)
    if not set(expected) <= names.keys():
        raise CCNetError(
            f"{path}: holds {sorted(names)[:8]}, expected {' and '.join(map(repr, expected))}, as NTIRE has"
        )


def _dataset(path: Path, file: Any, name: str) -> Any:
    """Return a dataset whose values are in this very file, or None; refuse one that would open other files."""
    h5py = optional_module("h5py")
    link = file.get(name, getlink=True)
    data = file[name] if isinstance(link, h5py.HardLink) else None
    inside = isinstance(data, h5py.Dataset) and not data.external and not data.is_virtual
    if link is not None and not inside:
        raise CCNetError(f"{path}: {name!r} is not a dataset inside this file, expected plain numbers; save it anew")
    return data


def _read_matlab5(path: Path, bands_required: bool, max_pixels: float) -> Values:
    arrays = read_arrays(path, _MAX_MATLAB5_BYTES)
    _check_names(path, arrays, bands_required)
    cube = arrays["cube"]
    check_layout(path, cube.shape, cube.dtype, "H, W, 31")
    check_pixels(path, math.prod(cube.shape[:2]), max_pixels)
    if "bands" in arrays:
        check_wavelengths(path, arrays["bands"])
    return cube.transpose(2, 0, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Writing


@contextmanager
def open_mat(path: Path, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
    """Open a cube for writing, as MATLAB 7.3.

    Args:
        path: The ``.mat``.
        height: Rows of the cube.
        width: Columns of the cube.
        metadata: Attributes of the dataset ``cube``.

    Yields:
        The writer.
    """
    with replace_when_complete(path) as partial:
        with write_errors(path):
            disk = DeferredErrorFile(partial, "x+")
        with disk:
            with optional_module("h5py").File(disk, "w", userblock_size=_USERBLOCK_BYTES, locking=False) as file:
                data = _create_datasets(file, height, width, metadata)

                def put(band: int, top: int, left: int, rows: Array) -> None:
                    data[band, left : left + rows.shape[1], top : top + rows.shape[0]] = rows.T
                    disk.check()

                writer = PartWriter(path, height, width, put)
                yield writer
                writer.check_complete()
            with write_errors(path):
                disk.seek(0)
                disk.write(_USERBLOCK)
                disk.check()


def _create_datasets(file: Any, height: int, width: int, metadata: Mapping[str, str]) -> Any:
    # A strip of whole chunks goes straight to the disk, past HDF5's cache, and its rows lie together
    chunks = (1, min(width, 256), min(height, 64))
    data = file.create_dataset("cube", (BAND_COUNT, width, height), "<f4", chunks=chunks)
    data.attrs["MATLAB_class"] = np.bytes_("single")
    for name, value in (("bands", np.array(BANDS_NM, float)[:, None]), ("norm_factor", np.ones((1, 1)))):
        file.create_dataset(name, data=value).attrs["MATLAB_class"] = np.bytes_("double")
    data.attrs.update(metadata)
    return data
