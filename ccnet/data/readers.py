"""Files of published data sets as cubes and frames: which files, keys and bands each data set uses, and its values.

The file formats themselves are read by ``ccnet.runtime.io``. Every reader raises a CCNetError of one line for a file
that is not what it should be.

Shape legend: 31 bands first, H×W pixels; reflectance in [0, 1]; float32.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError, decode_errors_as, prefix_errors
from ccnet.contract.gaps import gaps_as_text
from ccnet.runtime.io.files import native_messages
from ccnet.runtime.io.formats.cube_checks import BAND_COUNT, check_pixels, is_band
from ccnet.runtime.io.formats.envi import EnviImage, open_envi_image
from ccnet.runtime.io.formats.mat import read_mat

from .camera import Array

_logger = logging.getLogger(__name__)

MAX_PIXELS = 16_000_000
"""A larger picture is refused before it is read: its cube alone would take 2 GB."""

SLACK = 1e-3
"""How far a cube's values may lie outside [0, 1], because of rounding; they are not clipped."""

# ---------------------------------------------------------------------------------------------------------------------
# NTIRE: a MATLAB file and a picture


def read_ntire_cube(path: Path) -> Array:
    """Read a cube of NTIRE 2022 (MATLAB 7.3) or NTIRE 2020 (MATLAB 5).

    Raises CCNetError where the file is damaged, has another shape, other wavelengths or another order of them, or
    values that are not finite or not in [0, 1].

    Args:
        path: A file with ``cube`` and perhaps ``bands``.

    Returns:
        (31, H, W).
    """
    with decode_errors_as(path, "an NTIRE cube (MATLAB 7.3 or 5)"):
        return _reflectance(path, read_mat(path, bands_required=False, max_pixels=MAX_PIXELS))


def read_ntire_frame(path: Path) -> Array:
    """Read a published frame, an 8-bit PNG or JPEG.

    Args:
        path: The file. Pillow reads it, because OpenCV accepts half a JPEG as a complete one.

    Returns:
        (3, H, W) in [0, 1].

    Raises:
        CCNetError: The file is not a complete RGB picture of 8 bits a channel.
    """
    from PIL import Image

    with decode_errors_as(path, "a whole PNG or JPEG"), Image.open(path, formats=("PNG", "JPEG")) as image:
        check_pixels(path, image.height * image.width, MAX_PIXELS)
        # Pillow would reduce 16 bits to 8, and tells it only here
        stored = image.tile[0][3] if image.format == "PNG" else image.mode
        if stored != "RGB":
            raise CCNetError(f"{path}: mode {stored}, expected an RGB picture of 8 bits a channel; convert it")
        frame = np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)
        return np.ascontiguousarray(frame)


# ---------------------------------------------------------------------------------------------------------------------
# CAVE: 31 pictures


def read_cave(scene: Path) -> Array:
    """Read a CAVE scene: 31 16-bit grey PNGs, of which number 01 is 400 nm.

    Args:
        scene: The folder of the PNGs.

    Returns:
        (31, H, W) in [0, 1].

    Raises:
        CCNetError: A band is missing, is not 16-bit grey (the original release has ``watercolors`` as 8-bit RGBA), or
            has another size than the others.
    """
    bands = [read_cave_band(path) for path in cave_bands(scene)]
    shapes = {band.shape for band in bands}
    if len(shapes) > 1:
        raise CCNetError(f"{scene}: bands have different sizes {sorted(shapes)}, expected one; download it again")
    return np.stack(bands).astype(np.float32) / np.float32(65535)


def cave_bands(scene: Path) -> list[Path]:
    """Return the files of a scene's bands, ascending; CCNetError where one is missing."""
    bands: list[Path] = []
    for band in range(1, BAND_COUNT + 1):
        paths = sorted(scene.glob(f"[!.]*_{band:02d}.png"))
        if len(paths) != 1:
            raise CCNetError(f"{scene}: has {len(paths)} files for band {band:02d}, expected one *_{band:02d}.png")
        bands += paths
    return bands


def read_cave_band(path: Path) -> npt.NDArray[np.uint16]:
    """Read one band (H, W); CCNetError where it is not a 16-bit grey PNG."""
    import cv2

    with decode_errors_as(path, "a 16-bit grey PNG"), native_messages():
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
    if image is None:
        raise CCNetError(f"{path}: not a readable PNG, expected a 16-bit grey one; download it again")
    if image.dtype != np.uint16 or image.ndim != 2:
        what = f"{image.dtype} with shape {image.shape}, expected a 16-bit grey PNG"
        raise CCNetError(f"{path}: {what}; leave its scene out (CAVE's watercolors was published as 8-bit RGBA)")
    check_pixels(path, image.size, MAX_PIXELS)
    return image.astype(np.uint16)


# ---------------------------------------------------------------------------------------------------------------------
# ENVI: cubes of any camera whose bands include the 31


def read_envi_cube(header: Path) -> Array:
    """Read the 31 bands of an ENVI cube, which may hold more bands, in any order.

    One line in the log counts the pixels with the header's ``data ignore value`` in one of the good bands, and names
    the bands that its ``bbl`` marks as bad.

    Args:
        header: The ``.hdr``.

    Returns:
        (31, H, W), divided by the header's ``reflectance scale factor``; NaN in these pixels and bands.

    Raises:
        CCNetError: ``check_envi_cube`` refuses the cube, no value is left, or other values are not finite or not in
            [0, 1].
    """
    with decode_errors_as(header, "an ENVI cube"):
        image = open_envi_image(header, MAX_PIXELS)
        indices = _find_bands(header, image)
        with prefix_errors(header):
            known = image.known_values(indices)
        values = image.read(indices)
        if known is None:
            return _reflectance(header, values)
        cube = _reflectance(header, np.where(known, values, 0))
        cube[~known] = np.nan
        _report_once(header, gaps_as_text(cube))
        return cube


@functools.cache  # training reads a cube many times
def _report_once(header: Path, gaps: str) -> None:
    """Log the pixels and bands of a cube that have no data."""
    _logger.warning("%s: %s have no data by its header: they neither train nor count", header, gaps)


def check_envi_cube(header: Path) -> None:
    """Check an ENVI cube without reading its values.

    Raises CCNetError where the header is damaged, the file of numbers is missing or of another length, a wavelength is
    missing, or integers have no scale.
    """
    with decode_errors_as(header, "an ENVI header with its .img beside it"):
        _find_bands(header, open_envi_image(header, MAX_PIXELS))


def _find_bands(header: Path, image: EnviImage) -> list[int]:
    """Return the index of each of the 31 wavelengths among the file's bands."""
    places = [np.flatnonzero(is_band(image.header.wavelengths, nm)) for nm in BANDS_NM]
    for nm, place in zip(BANDS_NM, places, strict=True):
        if place.size != 1:
            raise CCNetError(f"{header}: has {place.size} bands of {nm} nm, expected 400, 410, … 700 nm; resample it")
    return [int(place[0]) for place in places]


def _reflectance(path: Path, values: npt.NDArray[Any]) -> Array:
    """Return the values as contiguous float32, once all of them are reflectance."""
    with np.errstate(over="ignore"):
        cube = np.ascontiguousarray(values, np.float32)
    low, high = cube.min(), cube.max()
    if not np.isfinite([low, high]).all():
        raise CCNetError(f"{path}: holds NaN or infinite values, expected reflectance in [0, 1]; leave it out")
    if low < -SLACK or high > 1 + SLACK:
        raise CCNetError(f"{path}: values from {low:g} to {high:g}, expected reflectance in [0, 1]; scale or clip them")
    return cube
