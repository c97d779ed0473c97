"""The text header of an ENVI file, as ENVI, GDAL and many instruments write it.

Legend: B bands of the file; wavelengths in nm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError

from .cube_checks import check_pixels, nm_of_unit

_MAX_HEADER_BYTES = 1 << 20

_DTYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
"""ENVI's data type → dtype. 6 and 9 are complex, which no reflectance is."""

AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
"""Interleave → which of the axes (B, H, W) is stored first, second and third."""

_NO_UNIT = ("", "unknown", "none")

_LONGEST_UM = 100
"""Without a unit, wavelengths up to this number are in µm: no band of light has so few nm."""

_REFUSED = {
    "file compression": ("0", "a compressed file, expected plain values; decompress it"),
    "major frame offsets": ("0 0", "bytes between its frames, expected none; convert it"),
    "minor frame offsets": ("0 0", "bytes between its frames, expected none; convert it"),
    "data reflectance gain values": ("", "a gain to reflectance for each band, expected reflectance; convert it"),
    "data reflectance offset values": ("", "an offset to reflectance for each band, expected reflectance; convert it"),
}
"""Fields that change what the values mean → the value without effect, and the description of any other."""


@dataclass(frozen=True, kw_only=True)
class EnviHeader:
    """The facts of a header that place and scale the values.

    Attributes:
        shape: (B, H, W).
        dtype: Stored type, with its byte order.
        interleave: ``bsq``, ``bil`` or ``bip``.
        offset: Bytes before the first value.
        wavelengths: (B,) nm, in the file's order.
        gains: (B,) factors of the stored values.
        offsets: (B,) summands after the factors.
        scale: Divisor at the end, the reflectance scale factor.
        good_bands: (B,) False where the header's ``bbl`` marks a bad band.
        ignored: Stored value of pixels without data, or None.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    interleave: str
    offset: int
    wavelengths: npt.NDArray[np.float64]
    gains: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.float64]
    scale: float
    good_bands: npt.NDArray[np.bool_]
    ignored: float | None


def read_envi_header(path: Path, max_pixels: float = math.inf) -> EnviHeader:
    """Read and check a header.

    Missing fields have ENVI's defaults: no offset, little-endian, and the interleave that the suffix of the file of
    numbers names.

    Args:
        path: The ``.hdr``, in UTF-8 with or without a byte-order mark, or in Latin-1.
        max_pixels: Largest H·W.

    Returns:
        The facts.

    Raises:
        CCNetError: The header is damaged or is not that of a picture, bands have no wavelength in nm or µm, integers
            have no scale, or the picture is too large.
    """
    fields = _Fields(path)
    kind = fields.text("file type", "ENVI Standard").lower()
    if "library" in kind or "classification" in kind or "envi" not in kind:
        raise CCNetError(f"{path}: not a picture but {kind[:40]!r}, expected ENVI Standard; convert it")
    for key, (harmless, what) in _REFUSED.items():
        if fields.text(key, harmless).strip("{} ").replace(",", " ").split() != harmless.split():
            raise CCNetError(f"{path}: {key!r} says {what}")
    bands, lines, samples = (fields.whole(key) for key in ("bands", "lines", "samples"))
    if min(bands, lines, samples) < 1:
        shape = (bands, lines, samples)
        raise CCNetError(f"{path}: not a cube, its bands, lines and samples are {shape}, expected at least 1 each")
    check_pixels(path, lines * samples, max_pixels)
    dtype = fields.dtype()
    gains, offsets = fields.numbers("data gain values", bands, 1), fields.numbers("data offset values", bands, 0)
    if dtype.kind != "f" and not {"reflectance scale factor", "data gain values"} & fields.keys():
        raise CCNetError(f"{path}: {dtype} without 'reflectance scale factor', expected it for integers; add it")
    return EnviHeader(
        shape=(bands, lines, samples),
        dtype=dtype,
        interleave=fields.interleave(),
        offset=fields.whole("header offset", "0"),
        wavelengths=fields.wavelengths(bands),
        gains=gains,
        offsets=offsets,
        scale=fields.scale(),
        good_bands=fields.numbers("bbl", bands, 1) != 0,
        ignored=fields.ignored(),
    )


class _Fields(dict[str, str]):
    """The fields of a header, keys in lower case with single spaces; its methods read one kind of field each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(_parse(path, _decode(path)))

    def text(self, key: str, default: str) -> str:
        return self.get(key, "") or default

    def whole(self, key: str, default: str = "") -> int:
        text = self.text(key, default)
        if not re.fullmatch(r"[+-]?[0-9]{1,12}", text):
            raise CCNetError(f"{self._path}: {key} is {text[:40]!r}, expected a whole number; correct the header")
        return int(text)

    def numbers(self, key: str, count: int, default: float) -> npt.NDArray[np.float64]:
        """Return the numbers of a list in braces, one for each band."""
        texts = [text for text in re.split(r"[,\s]+", self.get(key, "").strip("{} ")) if text]
        if not texts:
            return np.full(count, default, np.float64)
        try:
            values = np.array([float(text) for text in texts])
        except ValueError as error:
            raise CCNetError(f"{self._path}: {key} holds what is not a number ({str(error)[:80]})") from error
        if values.size != count or not np.isfinite(values).all():
            raise CCNetError(f"{self._path}: {key} has {values.size} numbers for {count} bands, expected one each")
        return values

    def dtype(self) -> np.dtype[Any]:
        code, big = self.whole("data type"), self.whole("byte order", "0")
        if code not in _DTYPES or big not in (0, 1):
            known = ", ".join(map(str, _DTYPES))
            raise CCNetError(
                f"{self._path}: data type is {code} and byte order {big}, expected one of {known}, and 0 or 1;"
                " convert it"
            )
        return np.dtype(("<", ">")[big] + _DTYPES[code])

    def interleave(self) -> str:
        """Return the interleave; where the header has none, that which the name of the file of numbers has."""
        text = self.get("interleave", "").lower() or _suffix_of_image(self._path)
        if text not in AXES:
            raise CCNetError(
                f"{self._path}: interleave is {text[:40]!r}, expected interleave bsq, bil or bip; convert it"
            )
        return text

    def scale(self) -> float:
        text = self.text("reflectance scale factor", "1")
        if not 0 < (scale := _number(text)) < math.inf:
            raise CCNetError(
                f"{self._path}: reflectance scale factor is {text[:40]!r}, expected a number above 0; correct it"
            )
        return scale

    def ignored(self) -> float | None:
        if not (text := self.get("data ignore value", "").strip("{} ")):
            return None
        if math.isnan(value := _number(text)) and text.lower() not in ("nan", "-nan"):
            raise CCNetError(f"{self._path}: data ignore value is {text[:40]!r}, expected a number; correct it")
        return value

    def wavelengths(self, bands: int) -> npt.NDArray[np.float64]:
        texts = [text for text in self.get("wavelength", "").strip("{} ").split(",") if text.strip()]
        if len(texts) != bands:
            raise CCNetError(f"{self._path}: {len(texts)} wavelengths for {bands} bands, expected one each; add them")
        try:
            values = np.array([float(text) for text in texts])
        except ValueError as error:
            message = f"{self._path}: wavelength holds what is not a number, expected nm ({str(error)[:80]})"
            raise CCNetError(message) from error
        return values * self._nm_of_unit(values)

    def _nm_of_unit(self, values: npt.NDArray[np.float64]) -> float:
        unit = self.get("wavelength units", "")
        plain = unit.strip("{} ")
        if nm := nm_of_unit(plain):
            return nm
        if plain.lower() in _NO_UNIT:
            return 1e3 if np.max(values) <= _LONGEST_UM else 1.0
        raise CCNetError(
            f"{self._path}: wavelength units are {unit[:40]!r}, expected Nanometers or Micrometers; convert them"
        )


def _decode(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_MAX_HEADER_BYTES + 1)
    if len(data) > _MAX_HEADER_BYTES:
        raise CCNetError(f"{path}: longer than 1 MB, expected an ENVI header")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _parse(path: Path, text: str) -> Mapping[str, str]:
    """Return the ``key = value`` lines; a value in braces may span lines."""
    lines = iter(re.split(r"\r\n|\r|\n", text))
    if not next(lines, "").startswith("ENVI"):
        raise CCNetError(f"{path}: no ENVI header, expected a text file whose first line is ENVI")
    fields: dict[str, str] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals or line.lstrip().startswith(";"):
            continue
        parts = [value.strip()]
        while parts[0].startswith("{") and "}" not in parts[-1]:
            if (more := next(lines, None)) is None:
                raise CCNetError(f"{path}: cut off, {key.strip()[:40]!r} has no closing brace, expected a whole header")
            parts.append(more)
        fields[" ".join(key.replace("_", " ").lower().split())] = " ".join(parts).strip()
    return fields


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _suffix_of_image(header: Path) -> str:
    """Return the suffix of a file beside the header whose name says how it is interleaved, without the dot."""
    names = {path.name.lower() for path in header.parent.iterdir()}
    bases = (header.stem.lower(), header.name.lower())
    return next((suffix for suffix in AXES if any(f"{base}.{suffix}" in names for base in bases)), "")
