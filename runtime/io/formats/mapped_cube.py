"""Cubes that stay on the disk: parts of them are read on demand, with every n-th pixel where less will do.

Legend: B bands of the file, H×W pixels; a part is (b, h, w) float32; wavelengths in nm.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import Closeable

from .cube_writer import Array


@dataclass(frozen=True)
class Selection:
    """Every ``step``-th row or column from ``start`` on, before ``stop``."""

    start: int
    stop: int
    step: int = 1

    def __len__(self) -> int:
        return max(0, math.ceil((self.stop - self.start) / self.step))

    def as_slice(self) -> slice:
        """Return the selection as numpy takes it."""
        return slice(self.start, self.stop, self.step)


@dataclass(frozen=True)
class MappedCube(Closeable):
    """An open cube whose values are read on demand, from any thread. Use it in ``with`` or call ``close``.

    Attributes:
        shape: (B, H, W).
        wavelengths: (B,) nm, in the file's order.
        read: Reads bands by their indices, and of these the selected rows and columns: (b, h, w) float32.
        close: Frees the file.
        read_means: Reads as ``read`` does, but where pixels are left out may give means of pixels, which is quicker;
            for pictures only. None for a format without overviews.
    """

    shape: tuple[int, int, int]
    wavelengths: npt.NDArray[np.float64]
    read: Callable[[Sequence[int], Selection, Selection], Array]
    close: Callable[[], None] = lambda: None
    read_means: Callable[[Sequence[int], Selection, Selection], Array] | None = None


def map_array(array: npt.NDArray[Any], wavelengths: npt.NDArray[np.float64]) -> MappedCube:
    """Return a cube of an array (B, H, W), in memory or mapped."""
    rows_of = _ThinRows.of(array)

    def read(bands: Sequence[int], rows: Selection, columns: Selection) -> Array:
        part = np.empty((len(bands), len(rows), len(columns)), np.float32)
        for target, band in zip(part, bands, strict=True):
            if rows_of and rows.step > 1:
                for at, row in enumerate(range(rows.start, rows.stop, rows.step)):
                    target[at] = rows_of.read(band, row, columns)
            else:
                target[...] = array[band, rows.as_slice(), columns.as_slice()]
        return part

    bands, height, width = array.shape
    return MappedCube((bands, height, width), wavelengths, read, rows_of.close if rows_of else lambda: None)


class _ThinRows:
    """Reads single rows of a mapped array from its file.

    Rows that lie far apart are slow to read through the map: the system reads ahead up to 128 kB at each of them.
    """

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> _ThinRows | None:
        """Return the reader of an array (B, H, W); None where its rows do not lie in a file as a whole."""
        in_file = isinstance(array, np.memmap) and array.filename is not None and hasattr(os, "pread")
        return cls(array) if in_file and array.strides[2] == array.itemsize else None

    def __init__(self, array: Any) -> None:
        self._file = Path(array.filename).open("rb", buffering=0)  # noqa: SIM115 - until close
        self._offset, self._strides, self._dtype = array.offset, array.strides, array.dtype
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, band: int, row: int, columns: Selection) -> npt.NDArray[Any]:
        """Return every n-th value of a row; OSError if the file is shorter than it was."""
        size = self._dtype.itemsize
        start = self._offset + band * self._strides[0] + row * self._strides[1] + columns.start * size
        length = (columns.stop - columns.start) * size
        data = os.pread(self._file.fileno(), length, start)
        if len(data) < length:
            raise OSError(f"{self._file.name}: became shorter while it was open")
        return np.frombuffer(data, self._dtype)[:: columns.step]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
