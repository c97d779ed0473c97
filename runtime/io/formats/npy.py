"""Arrays and cubes in numpy's ``.npy`` files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM

from .cube_checks import BAND_COUNT, check_layout
from .cube_writer import CubeWriter, open_band_sequential
from .mapped_cube import MappedCube, map_array


def map_npy(path: Path) -> npt.NDArray[Any]:
    """Map the array of a ``.npy`` file: header and file length are checked, no value is read, nothing is unpickled."""
    return np.lib.format.open_memmap(path, mode="r")


def open_npy(path: Path, height: int, width: int, metadata: Mapping[str, str]) -> AbstractContextManager[CubeWriter]:
    """Return a writer of a cube (31, height, width); the format has no place for the metadata."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (BAND_COUNT, height, width)}
    return open_band_sequential(path, height, width, lambda file: np.lib.format.write_array_header_1_0(file, header))


def map_cube_npy(path: Path) -> MappedCube:
    """Open a cube (31, H, W) of any float dtype; its values are read on demand."""
    cube = map_npy(path)
    check_layout(path, cube.shape, cube.dtype)
    return map_array(cube, np.array(BANDS_NM, np.float64))


def read_npy(path: Path) -> npt.NDArray[Any]:
    """Return a cube (31, H, W) of any float dtype; CCNetError where the array is not a cube."""
    cube = map_npy(path)
    check_layout(path, cube.shape, cube.dtype)
    return np.array(cube)  # a copy, because another process can change a mapped file
