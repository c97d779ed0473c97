"""HDF5 in the formats that are built on it, MATLAB 7.3 and NetCDF 4: errors of the disk, holes, reading on demand."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError
from ccnet.runtime.io.files import optional_module

from .cube_writer import Array
from .mapped_cube import MappedCube, Selection

_ROWS = 64
"""Rows that are read at a time, as many as a chunk of the files that this package writes."""


class DeferredErrorFile(io.FileIO):
    """A file that keeps its first error until ``check`` raises it: HDF5 crashes the process when a write fails."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all bytes, and return their number even where the disk refuses them."""
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while view and not self.error:
                view = view[super().write(view) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size, and return it even where the disk refuses it."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size or 0

    def check(self) -> None:
        """Raise the first OSError of a write or a truncation."""
        if self.error:
            raise self.error


def open_hdf5(path: Path) -> Any:
    """Open a file for reading.

    It is opened without HDF5's lock, which some disks refuse and other programs hold: nothing is written to it here.

    Args:
        path: The file.

    Returns:
        The open h5py file, to be closed by the caller.
    """
    return optional_module("h5py").File(path, "r", locking=False)


def is_complete(data: Any) -> bool:
    """Return whether all of a dataset was written: HDF5 reads zeros where nothing was."""
    if data.chunks is None:
        return bool(data.id.get_storage_size() == data.nbytes)
    chunks = math.prod(math.ceil(side / chunk) for side, chunk in zip(data.shape, data.chunks, strict=True))
    return bool(data.id.get_num_chunks() == chunks)


def check_complete(path: Path, data: Any) -> None:
    """Raise CCNetError unless all of a cube's dataset was written."""
    if not is_complete(data):
        raise CCNetError(f"{path}: truncated, some of its cube was never written, expected all of it; get it again")


def map_dataset(
    data: Any, band_axis: int, wavelengths: npt.NDArray[np.float64], close: Callable[[], None], flipped: bool = False
) -> MappedCube:
    """Return a cube of an open dataset.

    Args:
        data: The h5py dataset, of three axes.
        band_axis: The axis of the bands.
        wavelengths: (B,) nm.
        close: Frees the file.
        flipped: The other two axes are (W, H) instead of (H, W).

    Returns:
        The cube.
    """
    first, second = (axis for axis in range(3) if axis != band_axis)
    row_axis, column_axis = (second, first) if flipped else (first, second)
    order = (band_axis, row_axis, column_axis)

    def read(bands: Sequence[int], rows: Selection, columns: Selection) -> Array:
        part = np.empty((len(bands), len(rows), len(columns)), np.float32)
        # Whole runs of pixels, thinned in memory: HDF5 reads chunks as a whole, and single pixels of them slowly
        block = rows.step * max(1, _ROWS // rows.step)
        positions = range(len(bands))
        for group in [positions] if band_axis else [[position] for position in positions]:
            first, last = (extreme(bands[position] for position in group) for extreme in (min, max))
            box: list[Any] = [slice(columns.start, columns.stop)] * 3
            box[band_axis] = slice(first, last + 1)
            for top in range(rows.start, rows.stop, block):
                box[row_axis] = slice(top, min(top + block, rows.stop))
                run = data[tuple(box)].transpose(order)[:, :: rows.step, :: columns.step]
                at = (top - rows.start) // rows.step
                for position in group:
                    part[position, at : at + run.shape[1]] = run[bands[position] - first]
        return part

    bands, height, width = (data.shape[axis] for axis in order)
    return MappedCube((bands, height, width), wavelengths, read, close)
