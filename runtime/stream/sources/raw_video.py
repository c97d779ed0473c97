"""The source of raw video: frames without a header on stdin."""

from __future__ import annotations

import os

import numpy as np

from ccnet.contract import CCNetError

from .source import Pixels


class RawVideo:
    """Frames without a header, one after another, from a file descriptor that the caller closes."""

    def __init__(self, descriptor: int, shape: tuple[int, ...], dtype: str, colour: str = "") -> None:
        self._descriptor, self._shape, self._dtype = descriptor, shape, np.dtype(dtype)
        self.expected: int | None = None
        self.colour = colour

    def read(self) -> tuple[str, Pixels] | None:
        """Return an empty name and the next frame; None at the end, CCNetError if the last frame is incomplete."""
        frame = np.empty(self._shape, self._dtype)
        buffer = memoryview(frame.data).cast("B")
        # From the descriptor, because a thread that waits in sys.stdin would block the interpreter's exit
        count = 0
        while count < len(buffer) and (received := os.readv(self._descriptor, [buffer[count:]])):
            count += received
        if 0 < count < len(buffer):
            raise CCNetError(
                f"stdin ends with {count} bytes, but a frame of {self._shape} has {len(buffer)}: check --size"
            )
        return ("", frame) if count else None

    def close(self) -> None:
        """Do nothing: the caller closes the descriptor."""


def parse_size(text: str) -> tuple[int, int]:
    """Return height and width from ``WxH``."""
    width, x, height = text.partition("x")
    if not (x and width.isdecimal() and height.isdecimal() and int(width) * int(height)):
        raise CCNetError(f"--size is {text!r}, expected WxH in px, such as 1920x1080")
    return int(height), int(width)
