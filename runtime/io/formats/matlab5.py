"""MATLAB 5 files, as ``save -v6`` and ``-v7`` write them: their arrays of real numbers.

The source is MathWorks' "MAT-File Format". scipy.io reads more types, but a damaged file crashes the process: it uses a
type's number as an index without a check.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = b"MATLAB 5.0"
"""First bytes of a file."""

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Type of an element → dtype. MATLAB stores an array in the smallest type that holds its values."""

_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""Class of an array → its dtype in MATLAB."""

_COMPLEX = 0x0800


def read_arrays(path: Path, max_bytes: int) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of real numbers; structs, text and complex arrays are left out.

    A damaged file can raise any exception: call it within ``decode_errors_as``.

    Args:
        path: The file.
        max_bytes: Largest file, and largest content of all compressed arrays together.

    Returns:
        Name → array, with MATLAB's shape and axes.

    Raises:
        ValueError: The file holds more than ``max_bytes``.
    """
    if path.stat().st_size > max_bytes:
        raise ValueError(f"larger than {max_bytes} bytes")
    data = memoryview(path.read_bytes())
    order = {b"IM": "<", b"MI": ">"}[bytes(data[_HEADER - 2 : _HEADER])]
    arrays: dict[str, npt.NDArray[Any]] = {}
    for kind, content in _elements(data[_HEADER:], order):
        if kind == _COMPRESSED:
            inflated = _inflate(content, max_bytes)
            max_bytes -= len(inflated)
            kind, content = next(_elements(inflated, order))
        if kind == _MATRIX:
            arrays |= _array(content, order)
    return arrays


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type and content of the elements that follow each other in the data."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:  # a small element: its size shares the first word, its content is the second
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        content = data[start : start + size]
        if len(content) < size:
            raise ValueError("cut off")
        yield kind, content
        at = start + size + (0 if kind == _COMPRESSED else -(start + size) % 8)


def _inflate(content: memoryview, max_bytes: int) -> memoryview:
    stream = zlib.decompressobj()
    data = stream.decompress(content, max_bytes)
    if not stream.eof:
        raise ValueError(f"cut off, or larger than {max_bytes} bytes")
    return memoryview(data)


def _array(content: memoryview, order: str) -> dict[str, npt.NDArray[Any]]:
    """Return a matrix element's name and values, or an empty dict if they are not real numbers."""
    parts = _elements(content, order)
    flags = struct.unpack_from(f"{order}I", next(parts)[1])[0]
    if flags & 0xFF not in _CLASSES or flags & _COMPLEX:
        return {}
    (_, shape), (_, name), (stored, values) = islice(parts, 3)
    sides = [int(side) for side in np.frombuffer(shape, f"{order}i4")]
    numbers = np.frombuffer(values, f"{order}{_STORED[stored]}")
    if min(sides) < 0 or numbers.size != math.prod(sides):
        raise ValueError(f"shape {sides} with {numbers.size} values")
    array = numbers.reshape(sides, order="F").astype(_CLASSES[flags & 0xFF], copy=False)
    return {bytes(name).decode("ascii"): array}
