"""Two frames in progress: one is reconstructed while the next waits, and the caller captures and consumes meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, Closeable
from ccnet.runtime.io.frames import Frame

from .reconstructor import Reconstructor

Array = npt.NDArray[np.float32]


class AsyncReconstructor(Closeable):
    """Calls a Reconstructor in another thread. The caller closes the Reconstructor. Threads may share both.

    ``submit`` returns a Future at once while a slot is free, and waits otherwise: there are never more frames and cubes
    in progress than slots. Futures are done in the order in which frames were submitted.
    """

    def __init__(self, reconstruct: Reconstructor, slots: int = 2) -> None:
        """Start the thread.

        Args:
            reconstruct: Reconstructs the frames, in its input colour space.
            slots: Maximum number of frames in progress.

        Raises:
            CCNetError: ``slots`` is less than 1.
        """
        if slots < 1:
            raise CCNetError(f"slots is {slots}, expected at least 1")
        self._reconstruct = reconstruct
        self._free = threading.BoundedSemaphore(slots)
        # One thread: tiles take turns anyway, and two frames that alternate would both be late
        self._pool = ThreadPoolExecutor(1, "ccnet-slots")

    def submit(self, frame: Frame, context: Array | None = None, *, out: Any = None) -> Future[Any]:
        """Queue a frame. Leave ``frame`` and ``out`` alone until the Future is done.

        Args:
            frame: Frame (H, W, 3), as for ``Reconstructor.__call__``.
            context: Context to decode under. None is the frame's own.
            out: Array (31, H, W) float32 to fill and return, as for ``Reconstructor.__call__``.

        Returns:
            Future of the cube (31, H, W) float32; it raises the errors of the reconstruction.

        Raises:
            CCNetError: The AsyncReconstructor is closed.
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
        """Finish the frames that were submitted, and accept no more; harmless when called twice or by threads."""
        self._pool.shutdown(wait=True)
