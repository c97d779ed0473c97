"""Cubes that stay on the disk: parts of them are read on demand, with every n-th pixel where less will do.

Legend: B bands of the file, H×W pixels; a part is (b, h, w) float32; wavelengths in nm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

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
class MappedCube:
    """An open cube whose values are read on demand, from any thread. Use it in ``with`` or call ``close``.

    Attributes:
        shape: (B, H, W).
        wavelengths: (B,) nm, in the file's order.
        read: Reads bands by their indices, and of these the selected rows and columns: (b, h, w) float32.
        close: Frees the file.
    """

    shape: tuple[int, int, int]
    wavelengths: npt.NDArray[np.float64]
    read: Callable[[Sequence[int], Selection, Selection], Array]
    close: Callable[[], None] = lambda: None

    def __enter__(self) -> MappedCube:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def map_array(array: npt.NDArray[Any], wavelengths: npt.NDArray[np.float64]) -> MappedCube:
    """Return a cube of an array (B, H, W), in memory or mapped."""

    def read(bands: Sequence[int], rows: Selection, columns: Selection) -> Array:
        part = np.empty((len(bands), len(rows), len(columns)), np.float32)
        for target, band in zip(part, bands, strict=True):
            target[...] = array[band, rows.as_slice(), columns.as_slice()]
        return part

    bands, height, width = array.shape
    return MappedCube((bands, height, width), wavelengths, read)
