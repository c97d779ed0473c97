"""Files of published data sets → arrays. Whatever is wrong with one, the caller gets a CCNetError of one line.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1]; float32.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError, decode_errors_as

from .camera import Array
from .matlab5 import MAGIC, read_arrays

MAX_PIXELS = 16_000_000
"""A larger picture is refused before it is read: its cube alone would take 2 GB."""

SLACK = 1e-3
"""How far outside [0, 1] a cube's values may lie, for rounding's sake; they are kept as they are."""

Values = npt.NDArray[Any]

_COUNT = len(BANDS_NM)

# ---------------------------------------------------------------------------------------------------------------------
# NTIRE: a MATLAB file and a picture


def read_mat(path: Path) -> Array:
    """An NTIRE cube → (31, H, W): MATLAB 7.3 as in 2022 or MATLAB 5 as in 2020, with ``cube`` and perhaps ``bands``.

    CCNetError for a damaged file, another shape, other wavelengths or another order of them, values that are not
    finite or not in [0, 1].
    """
    with decode_errors_as(path, "an NTIRE cube (MATLAB 7.3 or 5)"):
        with path.open("rb") as file:
            old = file.read(len(MAGIC)) == MAGIC
        return _reflectance(path, _read_mat5(path) if old else _read_mat73(path))


def _read_mat73(path: Path) -> Values:
    """HDF5, where MATLAB's axes come in reverse: (31, W, H)."""
    import h5py

    with h5py.File(path, "r") as file:
        cube, bands = (_dataset(path, file, name) for name in ("cube", "bands"))
        if cube is None:
            raise CCNetError(f"{path}: holds {sorted(file)[:8]}, expected 'cube' as in NTIRE's data")
        _check_shape(path, cube.shape, "31, W, H")
        _check_float(path, cube.dtype)
        if bands is not None:
            _check_bands(path, bands[()] if bands.size == _COUNT else np.empty(0))
        if not _is_whole(cube):
            raise CCNetError(
                f"{path}: truncated, some of its cube was never written, expected all of it; download it again"
            )
        values: Values = cube.astype(np.float32)[()].transpose(0, 2, 1)
        return values


def _dataset(path: Path, file: Any, name: str) -> Any:
    """A dataset of this very file, or None; one that would open other files is refused."""
    import h5py

    link = file.get(name, getlink=True)
    data = file[name] if isinstance(link, h5py.HardLink) else None
    plain = isinstance(data, h5py.Dataset) and not data.external and not data.is_virtual
    if link is not None and not plain:
        raise CCNetError(f"{path}: {name!r} is not a dataset inside this file, expected plain numbers; save it anew")
    return data


def _is_whole(data: Any) -> bool:
    """Whether all of a dataset was written: HDF5 reads what was not as zeros."""
    if data.chunks is None:
        return bool(data.id.get_storage_size() == data.nbytes)
    chunks = math.prod(math.ceil(side / chunk) for side, chunk in zip(data.shape, data.chunks, strict=True))
    return bool(data.id.get_num_chunks() == chunks)


def _read_mat5(path: Path) -> Values:
    """The format before HDF5, in MATLAB's own order: (H, W, 31)."""
    arrays = read_arrays(path, max_bytes=_COUNT * 8 * MAX_PIXELS)
    if "cube" not in arrays:
        raise CCNetError(f"{path}: holds {sorted(arrays)[:8]}, expected 'cube' as in NTIRE's data")
    cube = arrays["cube"]
    _check_shape(path, cube.shape, "H, W, 31")
    _check_float(path, cube.dtype)
    if "bands" in arrays:
        _check_bands(path, arrays["bands"])
    values: Values = cube.transpose(2, 0, 1)
    return values


def _check_bands(path: Path, bands: Values) -> None:
    nm = np.asarray(bands, float).ravel()
    if np.array_equal(nm, BANDS_NM):
        return
    if np.array_equal(np.sort(nm), BANDS_NM):
        raise CCNetError(f"{path}: wrong wavelength order, expected 'bands' from 400 to 700 nm; sort the cube")
    raise CCNetError(f"{path}: other wavelengths, expected 'bands' of 400, 410, … 700 nm; resample the cube")


def read_rgb(path: Path) -> Array:
    """A published frame, an 8-bit PNG or JPEG → (3, H, W) in [0, 1].

    By Pillow: OpenCV takes half a JPEG for a whole one.
    """
    from PIL import Image

    with decode_errors_as(path, "a whole PNG or JPEG"), Image.open(path, formats=("PNG", "JPEG")) as image:
        _check_pixels(path, image.height * image.width)
        stored = image.tile[0][3] if image.format == "PNG" else image.mode  # of 16 bits Pillow would make 8
        if stored != "RGB":
            raise CCNetError(f"{path}: mode {stored}, expected an RGB picture of 8 bits a channel; convert it")
        frame = np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)
        return np.ascontiguousarray(frame)


# ---------------------------------------------------------------------------------------------------------------------
# CAVE: 31 pictures


def read_cave(scene: Path) -> Array:
    """One CAVE scene: 31 16-bit grey PNGs, band 01 = 400 nm → (31, H, W) in [0, 1].

    CCNetError for a missing band, a band that is not 16-bit grey (the original release's 8-bit RGBA
    ``watercolors``), or bands of different sizes.
    """
    bands = [read_cave_band(path) for path in cave_bands(scene)]
    shapes = {band.shape for band in bands}
    if len(shapes) > 1:
        raise CCNetError(f"{scene}: bands have different sizes {sorted(shapes)}, expected one; download it again")
    cube: Array = np.stack(bands).astype(np.float32) / np.float32(65535)
    return cube


def cave_bands(scene: Path) -> list[Path]:
    """The files of a scene's bands, ascending; CCNetError where one is missing."""
    bands: list[Path] = []
    for band in range(1, _COUNT + 1):
        paths = sorted(scene.glob(f"[!.]*_{band:02d}.png"))
        if len(paths) != 1:
            raise CCNetError(f"{scene}: has {len(paths)} files for band {band:02d}, expected one *_{band:02d}.png")
        bands += paths
    return bands


def read_cave_band(path: Path) -> npt.NDArray[np.uint16]:
    """One band, (H, W); CCNetError where it is not a 16-bit grey PNG."""
    import cv2

    with decode_errors_as(path, "a 16-bit grey PNG"):
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
    if image is None:
        raise CCNetError(f"{path}: not a readable PNG, expected a 16-bit grey one; download it again")
    if image.dtype != np.uint16 or image.ndim != 2:
        what = f"{image.dtype} with shape {image.shape}, expected a 16-bit grey PNG"
        raise CCNetError(f"{path}: {what}; leave its scene out (CAVE's watercolors was published as 8-bit RGBA)")
    _check_pixels(path, image.size)
    return image.astype(np.uint16)


# ---------------------------------------------------------------------------------------------------------------------
# ENVI: a text header and a file of numbers

_INTERLEAVES = ("bsq", "bil", "bip", "BSQ", "BIL", "BIP")
"""What spectral knows; it would read any other as bsq."""

_TO_NM = {"nanometers": 1, "nm": 1, "micrometers": 1000, "um": 1000, "unknown": 1}
"""Wavelength unit → nm. Where none is named, only nm can be 400 … 700."""


def read_envi(header: Path) -> Array:
    """The 31 bands of an ENVI cube, which may hold more → (31, H, W); divided by its ``reflectance scale factor``.

    CCNetError as of ``open_envi``, and for values that are not finite or not in [0, 1].
    """
    bands, chosen, scale = open_envi(header)
    with decode_errors_as(header, "an ENVI cube"):
        return _reflectance(header, np.asarray(bands[chosen], np.float32) / np.float32(scale))


def open_envi(header: Path) -> tuple[Values, list[int], float]:
    """All bands (B, H, W), mapped and not read; which of them are the 31, ascending; what to divide by.

    CCNetError for a damaged header, a file of another length than its header says, missing or other wavelengths,
    integers without a scale.
    """
    from spectral.io import envi

    with decode_errors_as(header, "an ENVI header with its .img beside it"):
        if header.stat().st_size > 1 << 20:
            raise CCNetError(f"{header}: longer than 1 MB, expected an ENVI header")
        fields = envi.read_envi_header(str(header))
        if fields.get("file type") == "ENVI Spectral Library" or fields.get("interleave") not in _INTERLEAVES:
            raise CCNetError(f"{header}: not a picture, expected interleave bsq, bil or bip; convert it")
        image = envi.open(str(header))
        chosen = _choose_bands(header, image)
        _check_pixels(header, image.nrows * image.ncols)
        _check_envi_numbers(header, image, "reflectance scale factor" in fields)
        return image.open_memmap(interleave="bsq"), chosen, image.scale_factor


def _choose_bands(header: Path, image: Any) -> list[int]:
    """Index of each of the 31 wavelengths among the cube's."""
    unit = image.bands.band_unit or "unknown"
    if unit.lower() not in _TO_NM:
        raise CCNetError(f"{header}: wavelength units are {unit!r}, expected Nanometers or Micrometers; convert them")
    nm = np.asarray(image.bands.centers or [], float) * _TO_NM[unit.lower()]
    if nm.size != image.nbands:
        raise CCNetError(f"{header}: {nm.size} wavelengths for {image.nbands} bands, expected one each; add them")
    chosen = [np.flatnonzero(abs(nm - band) < 0.05) for band in BANDS_NM]
    for band, found in zip(BANDS_NM, chosen, strict=True):
        if found.size != 1:
            raise CCNetError(f"{header}: has {found.size} bands of {band} nm, expected 400, 410, … 700 nm; resample it")
    return [int(found[0]) for found in chosen]


def _check_envi_numbers(header: Path, image: Any, scaled: bool) -> None:
    stored = np.dtype(image.dtype)
    if stored.kind not in "fiu" or not 0 < image.scale_factor < math.inf:
        raise CCNetError(f"{header}: {stored} divided by {image.scale_factor}, expected reflectance; correct it")
    if stored.kind != "f" and not scaled:
        raise CCNetError(f"{header}: {stored} without 'reflectance scale factor', expected it for integers; add it")
    size = image.offset + image.nbands * image.nrows * image.ncols * stored.itemsize
    if (found := Path(image.filename).stat().st_size) != size:
        raise CCNetError(f"{image.filename}: truncated or of another cube: {found} bytes, expected {size}")


# ---------------------------------------------------------------------------------------------------------------------
# What every file must be


def _check_shape(path: Path, shape: tuple[int, ...], axes: str) -> None:
    """axes: what the format makes of (31, H, W)."""
    if len(shape) != 3 or shape[axes.split(", ").index("31")] != _COUNT or min(shape) < 1:
        raise CCNetError(f"{path}: cube has shape {shape}, expected ({axes}); save it as NTIRE does")
    _check_pixels(path, math.prod(shape) // _COUNT)


def _check_float(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind != "f":
        raise CCNetError(f"{path}: cube is of type {dtype}, expected float; save it as NTIRE does")


def _check_pixels(path: Path, pixels: int) -> None:
    if not 0 < pixels <= MAX_PIXELS:
        raise CCNetError(f"{path}: {pixels} pixels, expected 1 to {MAX_PIXELS / 1e6:g} million; crop it")


def _reflectance(path: Path, values: Values) -> Array:
    """Contiguous float32, once all values are reflectance."""
    with np.errstate(over="ignore"):
        cube = np.ascontiguousarray(values, np.float32)
    low, high = cube.min(), cube.max()
    if not np.isfinite([low, high]).all():
        raise CCNetError(f"{path}: holds NaN or infinite values, expected reflectance in [0, 1]; leave it out")
    if low < -SLACK or high > 1 + SLACK:
        raise CCNetError(f"{path}: values from {low:g} to {high:g}, expected reflectance in [0, 1]; scale or clip them")
    return cube
