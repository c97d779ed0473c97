"""Zarr arrays of one cube each, in a group, as a stream writes them; read on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.io.files import optional_module

from .cube_writer import Array
from .mapped_cube import MappedCube, Selection


def zarr_arrays(path: Path) -> list[Path]:
    """Return the folders of the arrays in a group, sorted by name; the folder itself where it is an array.

    Args:
        path: Folder of a group or of an array.

    Returns:
        The folders.

    Raises:
        CCNetError: The folder holds no array.
    """
    found = [folder for folder in (path, *sorted(path.iterdir())) if _is_array(folder)]
    if not found:
        raise CCNetError(f"{path}: holds no Zarr array, expected a group of cubes or a cube; check the folder")
    return found


def _is_array(folder: Path) -> bool:
    if folder.name.startswith("."):
        return False
    if (folder / ".zarray").is_file():
        return True
    mark = folder / "zarr.json"
    return mark.is_file() and '"array"' in mark.read_text(encoding="utf-8", errors="replace")[: 1 << 16]


def map_zarr(path: Path) -> MappedCube:
    """Open an array (B, H, W) of floats whose attribute ``wavelength`` has B numbers in nm, or that has 31 bands."""
    array = optional_module("zarr", "camera").open_array(str(path), mode="r")
    wavelengths = np.asarray(array.attrs.get("wavelength", BANDS_NM), np.float64)
    if array.ndim != 3 or array.dtype.kind != "f" or wavelengths.shape != array.shape[:1] or min(array.shape) < 1:
        raise CCNetError(
            f"{path}: {array.dtype} {array.shape}, expected float (B, H, W) with B wavelengths; convert it"
        )

    def read(bands: Sequence[int], rows: Selection, columns: Selection) -> Array:
        part = np.empty((len(bands), len(rows), len(columns)), np.float32)
        # Chunks hold all bands: one chunk-high run of rows at a time, thinned in memory
        block = rows.step * max(1, array.chunks[1] // rows.step)
        first, last = min(bands), max(bands)
        for top in range(rows.start, rows.stop, block):
            run: Any = array[first : last + 1, top : min(top + block, rows.stop), columns.start : columns.stop]
            at = (top - rows.start) // rows.step
            thinned = run[:, :: rows.step, :: columns.step]
            part[:, at : at + thinned.shape[1]] = thinned[[band - first for band in bands]]
        return part

    bands, height, width = array.shape
    return MappedCube((bands, height, width), wavelengths, read)
