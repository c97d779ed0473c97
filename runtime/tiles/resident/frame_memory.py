"""Rows of a frame on the GPU, as the engines' pixels, from which tiles are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.runtime.gpu.cuda import Device, Stream
from ccnet.runtime.gpu.views import View, copy_view

from .memory import TransferMemory
from .pixels import PixelLayout, mirrored, write_pixels


class FrameMemory:
    """Pixels (h, w, 3) on the GPU. Load others only when no work uses those that are there."""

    def __init__(self, device: Device, layout: PixelLayout) -> None:
        """Allocate nothing yet.

        Args:
            device: The GPU.
            layout: Layout of the pixels.
        """
        self._layout = layout
        self._memory = TransferMemory(device)
        self._size = (0, 0)
        self._first = 0

    @property
    def pixels(self) -> View:
        """The pixels (h, w, 3)."""
        return self._layout.view(self._memory.address, *self._size)

    def forget(self) -> None:
        """Forget which rows are loaded."""
        self._size = (0, 0)

    def holds(self, start: int, stop: int) -> bool:
        """Return whether all of these rows of the frame are loaded."""
        return self._first <= start and stop <= self._first + self._size[0]

    def rows(self, start: int, stop: int) -> slice:
        """Return the rows of ``pixels`` that hold these rows of the frame."""
        return slice(start - self._first, stop - self._first)

    def load(
        self, frame: npt.NDArray[Any] | View, first: int, size: tuple[int, int], dtype: np.dtype[Any], stream: Stream
    ) -> None:
        """Convert rows of a frame and queue their upload.

        Args:
            frame: The whole frame (H, W, 3); the means of its blocks; or the view of a frame in GPU memory whose values
                are the layout's.
            first: First row of the frame.
            size: Height and width of the pixels; what lies beyond the frame is mirrored.
            dtype: The frame's dtype.
            stream: Stream that copies, and mirrors a frame that is on the GPU.

        Raises:
            OutOfMemoryError: The GPU or the host has too little memory.
        """
        self._memory.reserve(self._layout.nbytes(*size), host=not isinstance(frame, View))
        self._size = size
        self._first = first
        if isinstance(frame, View):
            height = min(frame.shape[0] - first, size[0])
            copy_view(stream, self.pixels[:height, : frame.shape[1]], frame[first : first + height, :])
            for pair in mirrored(self.pixels, height, frame.shape[1]):
                copy_view(stream, *pair)
        else:
            write_pixels(self._host(), frame, first, dtype)
            self._memory.upload(stream, self._layout.nbytes(*size))

    def close(self) -> None:
        """Free everything; no work may be left."""
        self.forget()
        self._memory.close()

    def _host(self) -> npt.NDArray[Any]:
        tensor = self._memory.array(self._layout.shape(*self._size)[1:], self._layout.dtype)
        return self._layout.pixels(tensor)
