"""ENVI: a text header ``.hdr`` beside a file of numbers. The one reader and writer, for results and for data sets.

Legend: B bands of the file, 31 bands of a cube, H×W pixels; wavelengths in nm.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError, prefix_errors
from ccnet.contract.gaps import gaps_as_text
from ccnet.runtime.io.files import read_head

from .cube_checks import BAND_COUNT, FWHM_NM, SOURCE_KEY, check_finite, check_wavelengths
from .cube_writer import CubeWriter, describe_content, open_band_sequential, replace_when_complete, write_errors
from .envi_header import AXES, EnviHeader, read_envi_header
from .georeference import Georeference, envi_fields
from .mapped_cube import MappedCube, Selection, map_array

_logger = logging.getLogger(__name__)

_SUFFIXES = ("img", "dat", "raw", "bin", "hyspex", *AXES)
"""Suffixes of the file of numbers, in the order of the search."""


@dataclass(frozen=True, kw_only=True)
class EnviImage:
    """An opened ENVI file, whose header fits the file of numbers; no value is read yet.

    Attributes:
        bands: (B, H, W), mapped, in the stored type.
        header: The facts of the header.
    """

    bands: npt.NDArray[Any]
    header: EnviHeader

    def read(self, indices: Sequence[int]) -> npt.NDArray[np.float32]:
        """Read bands as reflectance (len(indices), H, W) float32; values without data stay as they are stored."""
        chosen = list(indices)
        gains, offsets = (part[chosen, None, None] for part in (self.header.gains, self.header.offsets))
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.asarray(self.bands[chosen], np.float32)
            if (gains != 1).any():
                values *= gains.astype(np.float32)
            if offsets.any():
                values += offsets.astype(np.float32)
            values /= np.float32(self.header.scale)
        return values

    def without_data(self, indices: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Return the pixels (H, W) that have the header's ``data ignore value`` in at least one of the bands."""
        ignored, (_, height, width) = self.header.ignored, self.header.shape
        found = np.zeros((height, width), bool)
        if ignored is not None:
            for index in indices:
                band = self.bands[index]
                found |= np.isnan(band) if math.isnan(ignored) else band == ignored
        return found

    def known_values(self, indices: Sequence[int]) -> npt.NDArray[np.bool_] | None:
        """Return where bands have data by the header's ``bbl`` and ``data ignore value``.

        Args:
            indices: The bands.

        Returns:
            (len(indices), H, W), False in bad bands, and in pixels that lack data in one of the good bands; None where
            the bands have data everywhere.

        Raises:
            CCNetError: No value is left.
        """
        good = self.header.good_bands[list(indices)]
        missing = self.without_data(np.array(indices)[good].tolist())
        if good.all() and not missing.any():
            return None
        if missing.all() or not good.any():
            raise CCNetError("no pixel has data by its 'data ignore value' and 'bbl', expected some; leave it out")
        return good[:, None, None] & ~missing


def open_envi_image(header: Path, max_pixels: float = math.inf) -> EnviImage:
    """Open an ENVI file of any interleave, byte order and real type.

    Args:
        header: The ``.hdr``, see ``read_envi_header``; the file of numbers is beside it, under the same name with .img,
            .dat, .raw, .bin, another suffix or none.
        max_pixels: Largest H·W.

    Returns:
        The opened file.

    Raises:
        CCNetError: The header is damaged or does not fit the file of numbers, or the picture is too large.
    """
    facts = read_envi_header(header, max_pixels)
    expected = facts.offset + math.prod(facts.shape) * facts.dtype.itemsize
    image = _find_image(header, expected)
    read_head(image, "the values of the cube beside its header")
    if (size := image.stat().st_size) != expected or facts.offset < 0:
        raise CCNetError(f"{image}: truncated or of another cube: {size} bytes, expected {expected} by its header")
    order = AXES[facts.interleave]
    stored = np.memmap(image, facts.dtype, "r", facts.offset, tuple(facts.shape[axis] for axis in order))
    return EnviImage(bands=stored.transpose(np.argsort(order)), header=facts)


def read_envi(path: Path) -> npt.NDArray[np.float32]:
    """Read a cube (31, H, W).

    Args:
        path: The ``.hdr``.

    Returns:
        The cube, NaN where the header says that it has no data, which a warning in the log counts.

    Raises:
        CCNetError: The file does not hold exactly the 31 bands in ascending order, other values are not finite, or no
            value is left.
    """
    image = open_envi_image(path)
    check_wavelengths(path, image.header.wavelengths)
    with prefix_errors(path):
        known = image.known_values(range(BAND_COUNT))
    cube = image.read(range(BAND_COUNT))
    check_finite(path, cube, known)
    if known is not None:
        cube[~known] = np.nan
        _logger.warning("%s: %s have no data by its header: they are NaN", path, gaps_as_text(cube))
    return cube


def map_envi(path: Path) -> MappedCube:
    """Open an ENVI file of any bands; its values are read on demand, NaN where it has no data or a bad band."""
    image = open_envi_image(path)
    header = image.header
    gains, offsets = header.gains / header.scale, header.offsets / header.scale

    stored = map_array(image.bands, header.wavelengths)

    def read(bands: Sequence[int], rows: Selection, columns: Selection) -> npt.NDArray[np.float32]:
        part = stored.read(bands, rows, columns)
        missing = np.zeros(part.shape, bool) if header.ignored is None else part == np.float32(header.ignored)
        missing[~header.good_bands[list(bands)]] = True
        for plane, band in zip(part, bands, strict=True):
            if gains[band] != 1 or offsets[band]:
                plane *= gains[band]
                plane += offsets[band]
        part[missing] = np.nan
        return part

    return MappedCube(header.shape, header.wavelengths, read, stored.close)


def envi_source(header: Path) -> str:
    """Return the source that a header names, with escapes for what is not ASCII; empty if it names none."""
    with header.open(encoding="utf-8", errors="replace") as file:
        found = re.search(rf"^{SOURCE_KEY} = (.*)$", file.read(1 << 20), re.MULTILINE)
    return found[1].strip() if found else ""


def _find_image(header: Path, size: int) -> Path:
    """Find the file of numbers that belongs to a header: by a usual suffix, else the only file of the right size."""
    beside = sorted(path for path in header.parent.iterdir() if path.is_file() and not path.name.startswith("."))
    by_name = {path.name.lower(): path for path in reversed(beside)}
    by_name.update({path.name: path for path in beside})
    for suffix in (*(f".{suffix}" for suffix in _SUFFIXES), ""):
        for name in (header.stem + suffix, (header.stem + suffix).lower()):
            if (found := by_name.get(name)) and found != header:
                return found
    others = [path for path in beside if path.stem.lower() == header.stem.lower() and path != header]
    fitting = [path for path in others if path.stat().st_size == size]
    if len(fitting) == 1:
        return fitting[0]
    image = header.with_suffix(".img")
    what = f"{len(fitting)} files of its size beside it" if fitting else "no such file"
    raise CCNetError(f"{image}: {what}, expected the values of {header.name}; copy both files")


# ---------------------------------------------------------------------------------------------------------------------
# Writing


@contextmanager
def open_envi(
    path: Path, height: int, width: int, metadata: Mapping[str, str], georeference: Georeference | None = None
) -> Iterator[CubeWriter]:
    """Open a cube for writing: ``path`` becomes the header, and the values go to an ``.img`` beside it.

    Args:
        path: The ``.hdr``.
        height: Rows of the cube.
        width: Columns of the cube.
        metadata: Further fields of the header.
        georeference: Where on the earth the cube lies, if that is known.

    Yields:
        The writer.
    """
    metadata = {**(envi_fields(georeference) if georeference else {}), **metadata}
    with replace_when_complete(path) as header:
        with write_errors(path):
            header.write_bytes(_header_bytes(_cube_fields(height, width, metadata)))
        with open_band_sequential(path.with_suffix(".img"), height, width) as writer:
            yield writer


def write_envi_layers(
    path: Path,
    layers: npt.NDArray[np.float32],
    names: Sequence[str],
    metadata: Mapping[str, str],
    georeference: Georeference | None = None,
) -> None:
    """Write maps of one place, such as indices: ``path`` becomes the header of an ``.img`` beside it.

    Args:
        path: The ``.hdr``.
        layers: Values (K, H, W) float32.
        names: Name of each layer; a comma becomes a space.
        metadata: Further fields of the header.
        georeference: Where on the earth the maps lie, if that is known.

    Raises:
        CCNetError: The files cannot be written.
    """
    plain_names = (re.sub(r"[\s{},]+", " ", name).strip() for name in names)
    fields = {
        **_layout("maps of a cube that was reconstructed from an RGB frame", *layers.shape),
        "band names": f"{{{', '.join(plain_names)}}}",
        **(envi_fields(georeference) if georeference else {}),
        **metadata,
    }
    with (
        replace_when_complete(path) as header,
        replace_when_complete(path.with_suffix(".img")) as image,
        write_errors(path),
    ):
        header.write_bytes(_header_bytes(fields))
        image.write_bytes(np.ascontiguousarray(layers, "<f4").data)


def _cube_fields(height: int, width: int, metadata: Mapping[str, str]) -> dict[str, Any]:
    return {
        **_layout(describe_content(metadata), BAND_COUNT, height, width),
        "default bands": f"{{{', '.join(str(1 + BANDS_NM.index(nm)) for nm in (640, 550, 460))}}}",
        "wavelength units": "Nanometers",
        "band names": f"{{{', '.join(f'{nm} nm' for nm in BANDS_NM)}}}",
        "wavelength": f"{{{', '.join(map(str, BANDS_NM))}}}",
        "fwhm": f"{{{', '.join([f'{FWHM_NM:g}'] * BAND_COUNT)}}}",
        **metadata,
    }


def _layout(description: str, bands: int, height: int, width: int) -> dict[str, Any]:
    """Return the fields of band-sequential float32 values."""
    return {
        "description": f"{{{description}}}",
        "samples": width,
        "lines": height,
        "bands": bands,
        "file type": "ENVI Standard",
        "header offset": 0,
        "data type": 4,
        "interleave": "bsq",
        "byte order": 0,
    }


def _header_bytes(fields: Mapping[str, Any]) -> bytes:
    lines = ["ENVI", *(f"{key} = {value}" for key, value in fields.items()), ""]
    return "\n".join(lines).encode("ascii", "backslashreplace")
