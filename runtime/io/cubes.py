"""Cubes on disk: streaming writers, strip by strip, and the reader for the same formats.

Legend: a cube is (31, H, W) float32, bands ascending from 400 to 700 nm, reflectance-like values; a strip is
(31, h, W), its rows ``top`` to ``top + h``. Formats, by suffix:

- ``.hdr``: ENVI, a text header beside a band-sequential ``.img``;
- ``.mat``: MATLAB 7.3 (HDF5) as in NTIRE's data: ``cube`` (H, W, 31 to MATLAB; 31, W, H to h5py), ``bands`` in nm;
- ``.npy``: the bare array, without metadata.

A cube appears under its name when it is whole, or not at all.
"""

from __future__ import annotations

import io
import math
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError, decode_errors_as

from .files import optional_module, read_head
from .npy import map_npy

Array = npt.NDArray[np.float32]

_COUNT = len(BANDS_NM)
_EXPECTED = f"a cube of {_COUNT} bands, {BANDS_NM[0]}-{BANDS_NM[-1]} nm"
_ENVI = {"file type": "ENVI Standard", "header offset": "0", "data type": "4", "interleave": "bsq", "byte order": "0"}
_USERBLOCK = b"MATLAB 7.3 MAT-file, Platform: ccnet, HDF5 schema 1.00 .".ljust(116) + bytes(8) + b"\0\x02IM"


class CubeWriter(Protocol):
    """Takes a cube strip by strip, in any order."""

    def write(self, top: int, strip: Array) -> None:
        """Store rows ``top`` to ``top + h`` from a strip (31, h, W) float32.

        ValueError for a strip of another shape or dtype, or outside the cube; CCNetError where the disk refuses it.
        """


def open_cube(
    path: str | Path, height: int, width: int, metadata: Mapping[str, str] | None = None
) -> AbstractContextManager[CubeWriter]:
    """A writer of a cube (31, height, width), in the format of the path's suffix: .hdr, .mat or .npy.

    The path is checked in this call, and CCNetError says what is wrong with it: unknown suffix, missing folder, a
    folder in its place, too little space on the disk. In the ``with`` block all goes to a hidden file beside the
    target, which takes the target's name at the end; any exception, or a missing row, leaves the target untouched.
    ``metadata`` goes into ENVI's header and MATLAB's file; ``.npy`` has no place for it.
    """
    if min(height, width) < 1:
        raise ValueError(f"cube is {width}×{height} px, expected at least 1×1")
    path = Path(path)
    suffix = _suffix(path)
    with _writing(path):
        _check_target(path, 4 * _COUNT * height * width)
    return _WRITERS[suffix](path, height, width, _clean(metadata or {}))


def read_cube(path: str | Path) -> Array:
    """The cube (31, H, W) float32 of a .hdr, .mat or .npy file, as ``open_cube`` writes them.

    Of ENVI it reads float32 BSQ; ``.mat`` and ``.npy`` may hold any float type. CCNetError, one line that names the
    path, for a file that is missing, damaged, or not a finite cube of the 31 bands in ascending order.
    """
    path = Path(path)
    reader = _READERS[_suffix(path)]
    read_head(path, _EXPECTED)
    with decode_errors_as(path, _EXPECTED), np.errstate(all="ignore"):
        cube = np.ascontiguousarray(reader(path), np.float32)
    if not all(np.isfinite(band).all() for band in cube):
        raise CCNetError(f"{path}: holds NaN or infinite values, expected a finite cube; write it again")
    return cube


def _suffix(path: Path) -> str:
    if (suffix := path.suffix.lower()) not in _WRITERS:
        raise CCNetError(f"{path}: unknown cube format {suffix!r}, expected one of {', '.join(_WRITERS)}")
    return suffix


def _check_target(path: Path, need: int) -> None:
    try:
        path.lstat()
    except OSError:
        pass  # most often nothing is there
    except ValueError as error:
        raise CCNetError(f"{path}: no file can have that name ({error}); choose another") from error
    for target in (path, path.with_suffix(".img")) if path.suffix.lower() == ".hdr" else (path,):
        if target.is_dir():
            raise CCNetError(f"{target}: is a directory, expected a file name for the cube")
    if not path.parent.is_dir():
        raise CCNetError(f"{path}: the folder {path.parent} does not exist; make it first")
    if need > (free := shutil.disk_usage(path.parent).free):
        raise CCNetError(f"{path}: the cube takes {need / 1e9:.3g} GB, the disk has {free / 1e9:.3g} free; make room")


def _clean(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata that can break neither format: prefixed plain keys, values of one line without braces."""
    return {
        "ccnet " + re.sub(r"[^a-z0-9]+", " ", key.lower()).strip(): re.sub(r"[\s{}\0]+", " ", value).strip()
        for key, value in metadata.items()
    }


# ---------------------------------------------------------------------------------------------------------------------
# Writing


class _Writer:
    """Checks strips, remembers which rows came, and hands each band of a strip to ``put(band, top, rows)``."""

    def __init__(self, path: Path, height: int, width: int, put: Callable[[int, int, Array], None]) -> None:
        self._path, self._width, self._put = path, width, put
        self._missing = np.ones(height, bool)

    def write(self, top: int, strip: Array) -> None:
        height = strip.shape[1] if strip.ndim == 3 else 0
        if strip.dtype != np.float32 or strip.shape != (_COUNT, height, self._width):
            raise ValueError(f"strip is {strip.dtype} {strip.shape}, expected float32 ({_COUNT}, h, {self._width})")
        if not 0 <= top < top + height <= self._missing.size:
            raise ValueError(f"strip is rows {top} to {top + height}, expected them in 0 to {self._missing.size}")
        with _writing(self._path):
            for band, rows in enumerate(strip):
                self._put(band, top, rows)
        self._missing[top : top + height] = False

    def finish(self) -> None:
        if self._missing.any():
            missing, height = np.count_nonzero(self._missing), self._missing.size
            raise CCNetError(f"{self._path}: {missing} of the cube's {height} rows were never written; nothing is kept")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the disk refuses, in one line. h5py raises RuntimeError, too."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        why = " ".join((getattr(error, "strerror", None) or str(error)).split())[:200]
        raise CCNetError(f"{path}: cannot be written ({why}); choose a folder that you can write, with room") from error


@contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """A hidden name beside ``path`` that becomes ``path`` when the block succeeds, and vanishes when it does not."""
    partial = path.with_name(f".ccnet-{secrets.token_hex(6)}.partial")
    try:
        yield partial
        with _writing(path):
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def _raw(path: Path, height: int, width: int, header: Callable[[BinaryIO], None]) -> Iterator[CubeWriter]:
    """Header, then float32 band after band. Plain writes: a mapped file's dirty pages would count as our memory."""
    with _atomic(path) as partial:
        with _writing(path):
            # Unbuffered, so that a full disk shows in write and not again in close.
            file = partial.open("xb", buffering=0)
        with file:
            with _writing(path):
                header(file)
                start = file.tell()

            def put(band: int, top: int, rows: Array) -> None:
                file.seek(start + 4 * width * (band * height + top))
                data = np.ascontiguousarray(rows, "<f4").data.cast("B")
                while data:
                    data = data[file.write(data) :]

            writer = _Writer(path, height, width, put)
            yield writer
            writer.finish()


def _npy(path: Path, height: int, width: int, metadata: Mapping[str, str]) -> AbstractContextManager[CubeWriter]:
    header = {"descr": "<f4", "fortran_order": False, "shape": (_COUNT, height, width)}
    return _raw(path, height, width, lambda file: np.lib.format.write_array_header_1_0(file, header))


@contextmanager
def _envi(path: Path, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
    with _atomic(path) as header:
        with _writing(path):
            header.write_bytes(_envi_header(height, width, metadata).encode("ascii", "backslashreplace"))
        with _raw(path.with_suffix(".img"), height, width, lambda file: None) as writer:
            yield writer


def _envi_header(height: int, width: int, metadata: Mapping[str, str]) -> str:
    fields = {
        "description": "{reflectance, 31 bands reconstructed from an RGB frame}",
        "samples": width,
        "lines": height,
        "bands": _COUNT,
        **_ENVI,
        "default bands": f"{{{', '.join(str(1 + BANDS_NM.index(nm)) for nm in (640, 550, 460))}}}",
        "wavelength units": "Nanometers",
        "band names": f"{{{', '.join(f'{nm} nm' for nm in BANDS_NM)}}}",
        "wavelength": f"{{{', '.join(map(str, BANDS_NM))}}}",
        **metadata,
    }
    return "\n".join(["ENVI", *(f"{key} = {value}" for key, value in fields.items()), ""])


class _Forgiving(io.FileIO):
    """A file that keeps its first error to itself until ``check``: HDF5 crashes the process when a write fails."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while view and not self.error:
                view = view[super().write(view) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size or 0

    def check(self) -> None:
        if self.error:
            raise self.error


@contextmanager
def _mat(path: Path, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
    with _atomic(path) as partial:
        with _writing(path):
            disk = _Forgiving(partial, "x+")
        with disk:
            with optional_module("h5py").File(disk, "w", userblock_size=512) as file:
                data = _mat_datasets(file, height, width, metadata)

                def put(band: int, top: int, rows: Array) -> None:
                    data[band, :, top : top + rows.shape[0]] = rows.T
                    disk.check()

                writer = _Writer(path, height, width, put)
                yield writer
                writer.finish()
            with _writing(path):
                disk.seek(0)
                disk.write(_USERBLOCK)
                disk.check()


def _mat_datasets(file: Any, height: int, width: int, metadata: Mapping[str, str]) -> Any:
    # A strip of whole chunks goes straight to the disk, past HDF5's cache, and its rows lie together.
    chunks = (1, min(width, 256), min(height, 64))
    data = file.create_dataset("cube", (_COUNT, width, height), "<f4", chunks=chunks)
    data.attrs["MATLAB_class"] = np.bytes_("single")
    for name, value in (("bands", np.array(BANDS_NM, float)[:, None]), ("norm_factor", np.ones((1, 1)))):
        file.create_dataset(name, data=value).attrs["MATLAB_class"] = np.bytes_("double")
    data.attrs.update(metadata)
    return data


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def _check_cube(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], bands: Any = BANDS_NM) -> None:
    if len(shape) != 3 or dtype.kind != "f" or min(shape) < 1:
        raise CCNetError(f"{path}: not a cube but {dtype} with shape {shape}, expected {_EXPECTED}")
    if shape[0] != _COUNT:
        raise CCNetError(f"{path}: holds {shape[0]} bands in shape {shape}, expected {_EXPECTED}, bands first")
    if not np.array_equal(np.asarray(bands, float).ravel(), BANDS_NM):
        raise CCNetError(f"{path}: wavelengths are not 400, 410, … 700 nm in ascending order; sort or resample")


def _read_npy(path: Path) -> npt.NDArray[Any]:
    cube = map_npy(path)
    _check_cube(path, cube.shape, cube.dtype)
    return np.array(cube)  # a copy, for a mapped file could change under its reader


def _read_mat(path: Path) -> npt.NDArray[Any]:
    with optional_module("h5py").File(path, "r") as file:
        if not {"cube", "bands"} <= file.keys():
            raise CCNetError(f"{path}: holds {sorted(file)[:8]}, expected 'cube' and 'bands' as in NTIRE's data")
        data = file["cube"]
        _check_cube(path, data.shape, data.dtype, file["bands"][()])
        # No filter packs tighter than 1:1032, so less than that is a hole that would read as zeros.
        if data.id.get_storage_size() * 1032 < data.nbytes:
            raise CCNetError(f"{path}: truncated, its cube was never written in full; write it again")
        cube: npt.NDArray[Any] = data[()].transpose(0, 2, 1)
        return cube


def _read_envi(path: Path) -> npt.NDArray[Any]:
    fields = _envi_fields(path)
    for key, value in _ENVI.items():
        if fields.get(key, value).lower() != value.lower():
            raise CCNetError(f"{path}: {key} is {fields[key]!r}, expected {value} (float32 BSQ); convert it")
    try:
        shape = tuple(int(fields[key]) for key in ("bands", "lines", "samples"))
        bands = [float(nm) for nm in fields["wavelength"].strip("{}").split(",")]
    except (KeyError, ValueError) as error:
        raise CCNetError(f"{path}: no ENVI header with bands, lines, samples and wavelength ({error})") from error
    _check_cube(path, shape, np.dtype("<f4"), bands)
    image = path.with_suffix(".img")
    read_head(image, "the cube's values beside its header")
    size, expected = image.stat().st_size, 4 * math.prod(shape)
    if size != expected:
        raise CCNetError(f"{image}: truncated or of another cube: {size} bytes, expected {expected} by its header")
    return np.fromfile(image, "<f4").reshape(shape)


def _envi_fields(path: Path) -> dict[str, str]:
    """``key = value`` lines of an ENVI header, keys in lower case; a value in braces may span lines."""
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(1 << 16)
    pairs = re.findall(r"^([^=\n]+)=[ \t]*(\{[^}]*\}|[^\n]*)", text, re.MULTILINE) if text.startswith("ENVI") else []
    return {key.strip().lower(): value.strip() for key, value in pairs}


_WRITERS = {".hdr": _envi, ".mat": _mat, ".npy": _npy}
_READERS = {".hdr": _read_envi, ".mat": _read_mat, ".npy": _read_npy}
