"""Copies past the cache, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccnet.contract import kernel_library_path
from ccnet.runtime.tiles.resident import parallel_copy
from ccnet.runtime.tiles.resident.parallel_copy import copy_rows

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 70))
"""Bands, rows and columns: rows of less than a cache line to more than four."""


@pytest.mark.skipif(kernel_library_path() is None, reason="needs the compiled kernels")
@given(shape=SIZES, to=st.integers(0, 17), start=st.integers(0, 17), beyond=st.integers(0, 5))
def test_rows_and_nothing_else_are_written(shape: tuple[int, int, int], to: int, start: int, beyond: int) -> None:
    bands, rows, columns = shape
    source = np.random.default_rng(0).random((bands, rows + 1, start + columns), np.float32)[:, 1:, start:]
    cube = np.full((bands, rows + beyond, to + columns + beyond), -1, np.float32)
    expected = cube.copy()
    expected[:, :rows, to : to + columns] = source
    copy_rows(cube[:, :rows, to : to + columns], source)
    np.testing.assert_array_equal(cube, expected)


@pytest.mark.parametrize("compiled", [True, False])
def test_other_arrays_are_copied_by_numpy(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    if not compiled:
        monkeypatch.setattr(parallel_copy, "_compiled_copy", lambda: None)
    source = np.random.default_rng(0).random((3, 5, 40), np.float32)
    for target in (np.empty((3, 5, 40)), np.empty((3, 5, 80), np.float32)[:, :, ::2], np.empty((3, 5, 40), ">f4")):
        copy_rows(target, source)
        np.testing.assert_array_equal(target, source)
    with pytest.raises(ValueError, match="broadcast"):
        copy_rows(np.empty((3, 5, 41), np.float32), source)
    locked = np.zeros((3, 5, 40), np.float32)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        copy_rows(locked, source)
    assert not locked.any()
