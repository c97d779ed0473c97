"""MATLAB 5 files compared with scipy, and damaged files, on which scipy itself may crash."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from ccnet.runtime.io.formats.matlab5 import MAGIC, read_arrays

VALUES = {
    "cube": np.random.default_rng(0).random((4, 3, 31)),
    "single": np.random.default_rng(1).random((2, 5)).astype(np.float32),
    "bands": np.arange(400, 701, 10, np.uint16),
    "i": np.array([[-3]], np.int8),
    "a_long_name_for_a_scalar": np.array([[2.5]]),
    "empty": np.zeros((0, 3)),
    **{dtype: np.array([[1, 2, 3]], dtype) for dtype in ("int16", "int32", "uint8", "uint32", "int64", "uint64")},
}
OTHERS = {
    "text": "reflectance",
    "struct": {"a": 1.0},
    "cell": np.array([[1, "x"]], object),
    "complex": np.ones((2, 2), complex),
}


def saved(path: Path, values: dict[str, Any], *, compress: bool) -> Path:
    scipy.io.savemat(path, values, do_compression=compress)
    return path


@pytest.mark.parametrize("compress", [False, True])
def test_numeric_arrays_equal_scipys_and_other_types_are_skipped(tmp_path: Path, compress: bool) -> None:
    path = saved(tmp_path / "a.mat", VALUES | OTHERS, compress=compress)
    arrays, known = read_arrays(path, 1 << 20), scipy.io.loadmat(path)
    assert path.read_bytes().startswith(MAGIC)
    assert set(arrays) == set(VALUES)
    for name, array in arrays.items():
        assert array.dtype == known[name].dtype
        np.testing.assert_array_equal(array, known[name])


def element(kind: int, content: bytes) -> bytes:
    return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)


def big_endian(stored: int, values: bytes, sides: tuple[int, ...] = (2, 1, 3)) -> bytes:
    """Return a big-endian file with an array of doubles, ``x``, as MATLAB wrote it on SPARC."""
    flags, shape = element(6, struct.pack(">II", 6, 0)), element(5, struct.pack(f">{len(sides)}i", *sides))
    small_name = struct.pack(">HH4s", 1, 1, b"x")
    matrix = element(14, flags + shape + small_name + element(stored, values))
    return (MAGIC + b" MAT-file, Platform: SOL2").ljust(124) + b"\1\0MI" + matrix


@pytest.mark.parametrize(("stored", "code"), [(9, ">f8"), (2, "u1"), (3, ">i2")])
def test_big_endian_doubles_stored_as_smaller_types_are_read(tmp_path: Path, stored: int, code: str) -> None:
    path, numbers = tmp_path / "a.mat", np.arange(6)
    path.write_bytes(big_endian(stored, numbers.astype(code).tobytes()))
    (array,) = read_arrays(path, 1 << 20).values()
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, numbers.reshape((2, 1, 3), order="F"))
    np.testing.assert_array_equal(array, scipy.io.loadmat(path)["x"])


@pytest.mark.parametrize(
    "data",
    [
        big_endian(44, bytes(48)),  # an unknown type
        big_endian(9, bytes(40)),
        big_endian(9, bytes(48), (-2, -1, 3)),
        big_endian(9, bytes(48))[:-1],
        big_endian(9, bytes(48))[:150],
        big_endian(9, bytes(48)).replace(b"MI", b"??", 1),
        MAGIC,
    ],
    ids=["type", "too few numbers", "negative sides", "last byte", "flags", "byte order", "header"],
)
def test_damaged_file_raises_an_exception(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises((ValueError, KeyError, struct.error)):
        read_arrays(tmp_path / "a.mat", 1 << 20)


@pytest.mark.parametrize("compress", [False, True])
def test_mutated_bytes_give_arrays_or_an_exception(tmp_path: Path, compress: bool) -> None:
    """The reader must return arrays or raise an exception, but not crash."""
    buffer, rng = io.BytesIO(), np.random.default_rng(0)
    scipy.io.savemat(buffer, {"x": VALUES["cube"], "bands": VALUES["bands"]}, do_compression=compress)
    whole, path, refused = np.frombuffer(buffer.getvalue(), np.uint8), tmp_path / "a.mat", 0
    for _ in range(200):
        spoilt = whole.copy()
        spoilt[rng.integers(126, 300, 2)] = rng.integers(0, 256, 2)
        path.write_bytes(spoilt.tobytes())
        try:
            assert all(isinstance(array, np.ndarray) for array in read_arrays(path, 1 << 20).values())
        except Exception:
            refused += 1
    assert refused > 0


def test_arrays_that_inflate_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    """Each array is below the limit, but both together exceed it."""
    path = saved(tmp_path / "a.mat", {"a": np.zeros(10000), "b": np.zeros(10000)}, compress=True)
    assert path.stat().st_size < 2000
    assert len(read_arrays(path, 170000)) == 2
    with pytest.raises(ValueError, match="larger than"):
        read_arrays(path, 150000)
    with pytest.raises(ValueError, match="larger than 99 bytes"):
        read_arrays(path, 99)
