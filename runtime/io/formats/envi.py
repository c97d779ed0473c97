"""ENVI: a text header ``.hdr`` beside a file of numbers. The one reader and writer, for results and for data sets.

Legend: B bands of the file, 31 bands of a cube, H×W pixels; wavelengths in nm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.io.files import read_head

from .cube_checks import BAND_COUNT, check_pixels, check_wavelengths
from .cube_writer import CubeWriter, open_band_sequential, replace_when_complete, write_errors

_MAX_HEADER_BYTES = 1 << 20

_DTYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
"""ENVI's data type → dtype. 6 and 9 are complex, which no reflectance is."""

_AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
"""Interleave → which of the axes (B, H, W) is stored first, second and third."""

_TO_NM = {"nanometers": 1, "nm": 1, "micrometers": 1000, "um": 1000, "unknown": 1}
"""Wavelength unit → nm. Without a unit only nm can be 400 … 700."""

_SUFFIXES = ("img", "dat", "raw", "bin", "hyspex")
"""Suffixes of the file of numbers, in the order of the search."""


@dataclass(frozen=True, kw_only=True)
class EnviImage:
    """An opened ENVI file, whose header fits the file of numbers; no value is read yet.

    Attributes:
        bands: (B, H, W), mapped, in the stored type.
        wavelengths: (B,) nm, in the file's order.
        scale: The number to divide values by, to get reflectance.
    """

    bands: npt.NDArray[Any]
    wavelengths: npt.NDArray[np.float64]
    scale: float

    def read(self, indices: Sequence[int]) -> npt.NDArray[np.float32]:
        """Read bands as reflectance (len(indices), H, W) float32."""
        with np.errstate(over="ignore"):
            values = np.asarray(self.bands[list(indices)], np.float32)
            values /= np.float32(self.scale)
        return values


def open_envi_image(header: Path, max_pixels: float = math.inf) -> EnviImage:
    """Open an ENVI file of any interleave, byte order and real type.

    Args:
        header: The ``.hdr``; the file of numbers has the same name with .img, .dat, .raw, .bin or no suffix.
        max_pixels: Largest H·W.

    Returns:
        The opened file.

    Raises:
        CCNetError: The header is damaged or does not fit the file of numbers, bands have no wavelength in nm or µm,
            integers have no ``reflectance scale factor``, or the picture is too large.
    """
    fields = _read_fields(header)
    if "library" in (file_type := fields.get("file type", "ENVI Standard").lower()) or "envi" not in file_type:
        raise CCNetError(f"{header}: not a picture but {file_type[:40]!r}, expected ENVI Standard; convert it")
    if (interleave := fields.get("interleave", "").lower()) not in _AXES:
        raise CCNetError(
            f"{header}: interleave is {interleave[:40]!r}, expected interleave bsq, bil or bip; convert it"
        )
    shape = _whole(header, fields, "bands"), _whole(header, fields, "lines"), _whole(header, fields, "samples")
    if min(shape) < 1:
        raise CCNetError(f"{header}: not a cube, its bands, lines and samples are {shape}, expected at least 1 each")
    check_pixels(header, shape[1] * shape[2], max_pixels)
    wavelengths, dtype, scale = _wavelengths(header, fields, shape[0]), _dtype(header, fields), _scale(header, fields)
    if dtype.kind != "f" and "reflectance scale factor" not in fields:
        raise CCNetError(f"{header}: {dtype} without 'reflectance scale factor', expected it for integers; add it")
    image, offset = _find_image(header, interleave), _whole(header, fields, "header offset", "0")
    read_head(image, "the values of the cube beside its header")
    size, expected = image.stat().st_size, offset + math.prod(shape) * dtype.itemsize
    if size != expected or offset < 0:
        raise CCNetError(f"{image}: truncated or of another cube: {size} bytes, expected {expected} by its header")
    stored = np.memmap(image, dtype, "r", offset, tuple(shape[axis] for axis in _AXES[interleave]))
    return EnviImage(bands=stored.transpose(np.argsort(_AXES[interleave])), wavelengths=wavelengths, scale=scale)


def read_envi(path: Path) -> npt.NDArray[np.float32]:
    """Read a cube (31, H, W); CCNetError where the file does not hold exactly the 31 bands in ascending order."""
    image = open_envi_image(path)
    check_wavelengths(path, image.wavelengths)
    return image.read(range(BAND_COUNT))


def _read_fields(header: Path) -> dict[str, str]:
    """Read the ``key = value`` lines of a header, keys in lower case; a value in braces may span lines."""
    with header.open("rb") as file:
        data = file.read(_MAX_HEADER_BYTES + 1)
    if len(data) > _MAX_HEADER_BYTES:
        raise CCNetError(f"{header}: longer than 1 MB, expected an ENVI header")
    lines = iter(data.decode("utf-8", "replace").splitlines())
    if not next(lines, "").startswith("ENVI"):
        raise CCNetError(f"{header}: no ENVI header, expected a text file whose first line is ENVI")
    fields = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals or line.startswith(";"):
            continue
        parts = [value.strip()]
        while parts[0].startswith("{") and "}" not in parts[-1]:
            if (more := next(lines, None)) is None:
                raise CCNetError(
                    f"{header}: cut off, {key.strip()[:40]!r} has no closing brace, expected a whole header"
                )
            parts.append(more)
        fields[key.strip().lower()] = " ".join(parts)
    return fields


def _whole(header: Path, fields: Mapping[str, str], key: str, default: str = "") -> int:
    text = fields.get(key, default)
    if not re.fullmatch(r"[+-]?[0-9]{1,12}", text):
        raise CCNetError(f"{header}: {key} is {text[:40]!r}, expected a whole number; correct the header")
    return int(text)


def _wavelengths(header: Path, fields: Mapping[str, str], bands: int) -> npt.NDArray[np.float64]:
    unit = fields.get("wavelength units", "unknown")
    if unit.lower() not in _TO_NM:
        raise CCNetError(
            f"{header}: wavelength units are {unit[:40]!r}, expected Nanometers or Micrometers; convert them"
        )
    texts = [text for text in fields.get("wavelength", "").strip("{} ").split(",") if text.strip()]
    if len(texts) != bands:
        raise CCNetError(f"{header}: {len(texts)} wavelengths for {bands} bands, expected one each; add them")
    try:
        return np.array([float(text) for text in texts]) * _TO_NM[unit.lower()]
    except ValueError as error:
        raise CCNetError(f"{header}: wavelength holds what is not a number, expected nm ({str(error)[:80]})") from error


def _dtype(header: Path, fields: Mapping[str, str]) -> np.dtype[Any]:
    code, big = _whole(header, fields, "data type"), _whole(header, fields, "byte order", "0")
    if code not in _DTYPES or big not in (0, 1):
        known = ", ".join(map(str, _DTYPES))
        raise CCNetError(
            f"{header}: data type is {code} and byte order {big}, expected one of {known}, and 0 or 1; convert it"
        )
    return np.dtype(("<", ">")[big] + _DTYPES[code])


def _scale(header: Path, fields: Mapping[str, str]) -> float:
    text = fields.get("reflectance scale factor", "1")
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise CCNetError(f"{header}: reflectance scale factor is {text[:40]!r}, expected a number above 0; correct it")
    return scale


def _find_image(header: Path, interleave: str) -> Path:
    """Find the file of numbers that belongs to a header."""
    lower = [f".{suffix}" for suffix in (*_SUFFIXES, interleave)]
    for suffix in (*lower, *map(str.upper, lower), ""):
        if (image := header.with_suffix(suffix)).is_file():
            return image
    image = header.with_suffix(".img")
    raise CCNetError(f"{image}: no such file, expected the values of {header.name}; copy both files")


# ---------------------------------------------------------------------------------------------------------------------
# Writing


@contextmanager
def open_envi(path: Path, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
    """Open a cube for writing: ``path`` becomes the header, and the values go to an ``.img`` beside it.

    Args:
        path: The ``.hdr``.
        height: Rows of the cube.
        width: Columns of the cube.
        metadata: Further fields of the header.

    Yields:
        The writer.
    """
    with replace_when_complete(path) as header:
        with write_errors(path):
            header.write_bytes(_header_text(height, width, metadata).encode("ascii", "backslashreplace"))
        with open_band_sequential(path.with_suffix(".img"), height, width) as writer:
            yield writer


def _header_text(height: int, width: int, metadata: Mapping[str, str]) -> str:
    fields = {
        "description": f"{{reflectance, {BAND_COUNT} bands reconstructed from an RGB frame}}",
        "samples": width,
        "lines": height,
        "bands": BAND_COUNT,
        "file type": "ENVI Standard",
        "header offset": 0,
        "data type": 4,
        "interleave": "bsq",
        "byte order": 0,
        "default bands": f"{{{', '.join(str(1 + BANDS_NM.index(nm)) for nm in (640, 550, 460))}}}",
        "wavelength units": "Nanometers",
        "band names": f"{{{', '.join(f'{nm} nm' for nm in BANDS_NM)}}}",
        "wavelength": f"{{{', '.join(map(str, BANDS_NM))}}}",
        **metadata,
    }
    return "\n".join(["ENVI", *(f"{key} = {value}" for key, value in fields.items()), ""])
