"""Copies of cubes from page-locked into other host memory, by several threads, past the cache.

A part of a cube has rows of a tile's width. To store such short rows through the cache, the processor reads their
memory first; ccnet/csrc/host/copy_rows.c does not. Several threads use more of the memory's rate.
"""

from __future__ import annotations

import ctypes
import functools
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import available_cores, kernel_library_path

Array = npt.NDArray[np.float32]

_MOST_THREADS = 4


class ParallelCopy:
    """Copies arrays (bands, H, W), each thread a share of the bands."""

    def __init__(self, threads: int | None = None) -> None:
        """Choose the number of threads; they start with the first copy.

        Args:
            threads: Number of threads; None is the number of cores of this process, at most 4.
        """
        self._threads = threads or min(available_cores(), _MOST_THREADS)
        self._pool = ThreadPoolExecutor(max(self._threads - 1, 1), "ccnet-copy")

    def copy(self, target: Array, source: Array) -> None:
        """Copy all values of ``source`` (bands, H, W) to ``target``, whose shape is the same."""
        bands = len(source)
        ends = [bands * index // self._threads for index in range(self._threads + 1)]
        shares = [slice(*pair) for pair in pairwise(ends)]
        others: list[Future[None]] = []
        try:
            for share in shares[1:]:
                others.append(self._pool.submit(copy_rows, target[share], source[share]))
            copy_rows(target[shares[0]], source[shares[0]])
        finally:
            wait(others)  # the caller may write other values to source afterwards
        for other in others:
            other.result()

    def close(self) -> None:
        """Stop the threads; harmless when called twice."""
        self._pool.shutdown()


def copy_rows(target: Array, source: Array) -> None:
    """Copy all values of ``source`` (bands, H, W) to ``target``; with numpy where the package has no compiled code."""
    compiled = _compiled_copy()
    if compiled is None or not _has_rows(target, source):
        np.copyto(target, source)
    else:
        places = ((array.ctypes.data, *array.strides[:2]) for array in (target, source))
        compiled(*next(places), *next(places), *source.shape)


def _has_rows(target: Array, source: Array) -> bool:
    """Return whether C, which checks nothing, can copy between the two."""
    rows = all(array.dtype == np.float32 and array.strides[2:] == (array.itemsize,) for array in (target, source))
    return rows and target.shape == source.shape and target.flags.writeable


@functools.cache
def _compiled_copy() -> Any:
    """Return the function of ccnet/csrc/host/copy_rows.c, or None where the package has no compiled code."""
    if (path := kernel_library_path()) is None:
        return None
    function = ctypes.CDLL(str(path)).ccnet_copy_rows
    place = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    function.argtypes, function.restype = [*place, *place, *[ctypes.c_int64] * 3], None
    return function
