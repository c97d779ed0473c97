"""Copies of cubes from page-locked into other host memory, by several threads.

A part of a cube has rows of a tile's width. To store such short rows, the processor reads their memory first, so that a
single thread takes 1.4 times as long as for a whole cube. Several threads use more of the memory's rate.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ccnet.contract import available_cores

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

    def copy(self, target: npt.NDArray[np.float32], source: npt.NDArray[np.float32]) -> None:
        """Copy all values of ``source`` (bands, H, W) to ``target``, whose shape is the same."""
        bands = len(source)
        ends = [bands * index // self._threads for index in range(self._threads + 1)]
        shares = [slice(*pair) for pair in pairwise(ends)]
        others: list[Future[None]] = []
        try:
            for share in shares[1:]:
                others.append(self._pool.submit(np.copyto, target[share], source[share]))
            np.copyto(target[shares[0]], source[shares[0]])
        finally:
            wait(others)  # the caller may write other values to source afterwards
        for other in others:
            other.result()

    def close(self) -> None:
        """Stop the threads; harmless when called twice."""
        self._pool.shutdown()
