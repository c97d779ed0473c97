"""Measured spectra of camera responses and lights, read from files and resampled to the cube's bands. numpy only.

Shape legend: N samples of a file, k curves, 31 bands; wavelengths in nm, values relative.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError

Values = npt.NDArray[np.float64]

MAX_BYTES = 4 << 20
"""Largest file, and largest content of a packed file: a response at 1 nm takes some 30 kB."""

MAX_STEP = 20.0
"""Widest gap between samples, nm, that is interpolated: the flanks of a camera's channels are about 50 nm wide."""

NOISE = 0.01
"""Largest negative value as a share of the curve's peak; it counts as noise of the measurement and becomes 0."""

_LOW, _HIGH, _BAND = BANDS_NM[0], BANDS_NM[-1], BANDS_NM[1] - BANDS_NM[0]


@dataclass(frozen=True, kw_only=True)
class Spectra:
    """Curves on the cube's bands.

    Attributes:
        name: The device's name in the file, or the file's name without its suffix.
        values: (31, k), at least 0; no curve is zero everywhere, and each is relative to its peak in the file.
        peaks: (k,) largest absolute value of each curve in the file.
    """

    name: str
    values: Values
    peaks: Values


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A file's curves before any check: a name for each column of values, a wavelength for each row."""

    title: str | None = None
    names: Sequence[Any]
    nm: Sequence[Any]
    values: Sequence[Sequence[Any]]


def read_spectra(path: Path, what: str, select: Callable[[Sequence[str]], list[int]]) -> Spectra:
    """Read selected curves of a file and resample them to the cube's bands.

    Args:
        path: rawtoaces JSON; CSV with a header row, wavelengths first, between commas, semicolons or tabs; or NTIRE
            2020's ``.npz`` with ``filters`` (N, 3) or ``power`` (N,), and ``bands`` (N,), by default the cube's.
        what: What the file should be, for error messages.
        select: Returns the indices of the wanted curves among the names of all; raises CCNetError without them.

    Returns:
        The curves, in the order of ``select``.

    Raises:
        CCNetError: The file has none of these formats or is larger than 4 MiB, wavelengths do not ascend or leave a gap
            of more than 20 nm within 400-700 nm, or values are not finite, negative beyond noise, or zero everywhere.
    """
    read, data = _open(path, what)
    try:
        table = read(data)
        wanted = select(table.names)
        if odd := [row for row in table.values if len(row) != len(table.names)]:
            raise CCNetError(f"a row holds {len(odd[0])} values, expected {len(table.names)}, one for each curve")
        nm = np.array([float(each) for each in table.nm])
        values = np.array([[float(row[column]) for column in wanted] for row in table.values])
        bands = on_bands(nm, values)
        return Spectra(name=table.title or path.stem, values=bands, peaks=np.abs(values).max(0))
    except CCNetError as error:
        raise CCNetError(f"{path}: {error}") from error
    except Exception as error:  # on damaged and hostile bytes the parsers raise nearly every type there is
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CCNetError(f"{path}: not {what} ({why}); expected the layout of docs/cameras.md") from error


def on_bands(nm: Values, values: Values) -> Values:
    """Resample curves to the cube's bands.

    Where samples are finer than the bands, a band's value is the curve's mean over its 10 nm, without the parts of
    395-400 and 700-705 nm that the file lacks. Then Eq. 2's sum is the integral for a spectrum that is constant over
    each band, and every sample counts. Coarser samples are interpolated linearly at the band's centre. Noise below 0 is
    clipped after the means: clipping the samples would raise the means.

    Args:
        nm: (N,) wavelengths, ascending.
        values: (N, k).

    Returns:
        (31, k), each curve relative to its peak, at least 0.

    Raises:
        CCNetError: Wavelengths or values do not fit; see ``read_spectra``.
    """
    _check(nm, values)
    values = values / np.maximum(np.abs(values).max(0), np.finfo(np.float64).tiny)  # so that no sum overflows
    centres = np.array(BANDS_NM, np.float64)
    fine = _widest_step(nm) < _BAND
    bands = np.maximum(_means(centres, nm, values) if fine else _interpolate(centres, nm, values), 0)
    if not bands.any(0).all():
        raise CCNetError(f"holds a curve of zeros in {_LOW}-{_HIGH} nm, expected some response in every channel")
    return bands


def _means(centres: Values, nm: Values, values: Values) -> Values:
    """Return the means over the band around each centre, of the straight lines between samples."""
    low, high = np.maximum(centres - _BAND / 2, nm[0]), np.minimum(centres + _BAND / 2, nm[-1])
    knots = np.unique(np.concatenate([nm, low, high]))
    curve = _interpolate(knots, nm, values)
    areas = (curve[1:] + curve[:-1]) / 2 * np.diff(knots)[:, None]
    integral = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(areas, axis=0)])
    over = integral[np.searchsorted(knots, high)] - integral[np.searchsorted(knots, low)]
    return over / (high - low)[:, None]


def _interpolate(at: Values, nm: Values, values: Values) -> Values:
    return np.stack([np.interp(at, nm, curve) for curve in values.T], axis=1)


def _widest_step(nm: Values) -> float:
    """Return the widest gap between samples that reaches into 400-700 nm, in nm."""
    return float(np.diff(nm)[(nm[1:] > _LOW) & (nm[:-1] < _HIGH)].max())


def _check(nm: Values, values: Values) -> None:
    if values.ndim != 2 or nm.shape != values.shape[:1] or not nm.size:
        raise CCNetError(f"holds {nm.size} wavelengths and values of shape {values.shape}, expected a row for each")
    if not (np.isfinite(nm).all() and np.isfinite(values).all()):
        raise CCNetError("holds NaN or infinite values, expected a number in every place: measure or remove them")
    if (np.diff(nm) <= 0).any():
        raise CCNetError("wavelengths do not ascend, expected each one once, in ascending order: sort them")
    if nm[0] > _LOW or nm[-1] < _HIGH:
        raise CCNetError(
            f"wavelengths are from {nm[0]:g} to {nm[-1]:g} nm, expected {_LOW} to {_HIGH} nm to be covered"
        )
    if (step := _widest_step(nm)) > MAX_STEP:
        raise CCNetError(f"wavelengths are up to {step:g} nm apart, expected at most {MAX_STEP:g} nm: sample it finer")
    visible = values[(nm >= _LOW - _BAND / 2) & (nm <= _HIGH + _BAND / 2)]
    if (under := visible.min(0) < -NOISE * visible.max(0)).any():
        lowest = visible.min(0)[under][0]
        raise CCNetError(f"values go to {lowest:.3g}, expected none under {-100 * NOISE:g} % of their curve's peak")


def _open(path: Path, what: str) -> tuple[Callable[[bytes], _Table], bytes]:
    """Return the reader for the file's suffix, and the file's content."""
    suffixes = ", ".join(READERS)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise CCNetError(f"{path}: {problem}, expected {what} ({suffixes})")
    if path.suffix.lower() not in READERS:
        raise CCNetError(f"{path}: {path.suffix or 'no suffix'}, expected {what} ({suffixes})")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise CCNetError(f"{path}: is larger than {MAX_BYTES >> 20} MiB, expected {what} of some kB")
    return READERS[path.suffix.lower()], data


def _read_json(data: bytes) -> _Table:
    """Read rawtoaces JSON: names in spectral_data.index.main, a row a wavelength in spectral_data.data.main."""
    document = json.loads(data)
    spectral, header = document["spectral_data"], document.get("header", {})
    rows = spectral["data"]["main"]
    title = [header.get("manufacturer"), header.get("model")]
    named = all(isinstance(text, str) and text and text.isprintable() for text in title)
    return _Table(
        title=" ".join(title) if named else None,
        names=spectral["index"]["main"],
        nm=list(rows),
        values=list(rows.values()),
    )


def _read_csv(data: bytes) -> _Table:
    text = data.decode("utf-8-sig")
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    header, *rows = (row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(map(str.strip, row)))
    return _Table(names=header[1:], nm=[row[0] for row in rows], values=[row[1:] for row in rows])


def _read_npz(data: bytes) -> _Table:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
            raise CCNetError(f"unpacks to more than {MAX_BYTES >> 20} MiB, expected some kB")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        bands = file["bands"].ravel() if "bands" in file else np.array(BANDS_NM)
        names, values = (("R", "G", "B"), file["filters"]) if "filters" in file else (("power",), file["power"])
    columns = values[:, None] if values.ndim == 1 else values
    if columns.shape != (len(bands), len(names)):
        raise CCNetError(f"arrays are {values.shape}, expected ({len(bands)}, {len(names)}), a row for each wavelength")
    return _Table(names=names, nm=bands.tolist(), values=columns.tolist())


READERS = {".json": _read_json, ".csv": _read_csv, ".tsv": _read_csv, ".npz": _read_npz}
"""Suffix → reader; a folder is searched for these suffixes."""
