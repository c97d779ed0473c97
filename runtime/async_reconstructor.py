"""Two frames under way: one is reconstructed while the next waits, and the caller captures and consumes meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError
from ccnet.runtime.io.frames import Frame

from .reconstructor import Reconstructor

Array = npt.NDArray[np.float32]


class AsyncReconstructor:
    """Asynchronous calls of a Reconstructor, which stays the caller's to close. Threads may share it.

    ``submit`` gives a Future at once while a slot is free, and waits for one otherwise: no more than two frames and two
    cubes are under way. Futures are done in the order in which frames were submitted.
    """

    def __init__(self, reconstruct: Reconstructor, slots: int = 2) -> None:
        if slots < 1:
            raise CCNetError(f"slots is {slots}, expected at least 1")
        self._reconstruct = reconstruct
        self._free = threading.BoundedSemaphore(slots)
        # One thread: windows take turns anyway, and two frames that alternate would both be late
        self._pool = ThreadPoolExecutor(1, "ccnet-slots")

    def submit(self, frame: Frame, context: Array | None = None, *, out: Array | None = None) -> Future[Array]:
        """The cube (31, H, W) to come, made as by ``Reconstructor.__call__``; its errors are the Future's.

        Leave ``frame`` and ``out`` alone until the Future is done. CCNetError when closed.
        """
        self._free.acquire()
        try:
            future = self._pool.submit(self._reconstruct, frame, context, out=out)
        except RuntimeError as error:
            self._free.release()
            raise CCNetError("the slots are closed: make new ones") from error
        future.add_done_callback(lambda _: self._free.release())
        return future

    def close(self) -> None:
        """Finish what was submitted, and take no more; harmless when done twice, or by several threads."""
        self._pool.shutdown(wait=True)

    def __enter__(self) -> AsyncReconstructor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
