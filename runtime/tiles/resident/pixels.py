"""The pixels of a frame as an engine reads them, in host or GPU memory, mirrored beyond the right and bottom edges.

Legend: all arrays and views here have the axes (H, W, 3), whichever way the values lie in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import FRAME_SCALE, reflect_index
from ccnet.runtime.gpu.views import View


@dataclass(frozen=True)
class PixelLayout:
    """The layout in memory of the pixels of the tensor ``rgb``.

    Attributes:
        input: The manifest's ``input``: ``uint8`` is (1, H, W, 3), ``float32`` is (1, 3, H, W) in [0, 1].
    """

    input: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a value."""
        return np.dtype(self.input)

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of the tensor."""
        return (1, height, width, 3) if self.input == "uint8" else (1, 3, height, width)

    def nbytes(self, height: int, width: int) -> int:
        """Return the size of the tensor, bytes."""
        return math.prod(self.shape(height, width)) * self.dtype.itemsize

    def view(self, address: int, height: int, width: int) -> View:
        """Return the view (H, W, 3) of a tensor in GPU memory."""
        tensor = View.contiguous("device", address, self.shape(height, width)[1:], self.dtype)
        return tensor if self.input == "uint8" else tensor.transpose(1, 2, 0)

    def pixels(self, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the view (H, W, 3) of a tensor in host memory, without its first axis."""
        return tensor if self.input == "uint8" else tensor.transpose(1, 2, 0)


def write_pixels(target: npt.NDArray[Any], frame: npt.NDArray[Any], first: int, dtype: np.dtype[Any]) -> None:
    """Write some rows of a frame as the tensor's values, the same as ``rgb_tensor`` of ``crop`` gives.

    Args:
        target: Array (h, w, 3) of a ``PixelLayout``; what lies beyond the frame is mirrored.
        frame: The whole frame (H, W, 3), or the float32 means of its blocks.
        first: The row of the frame that the target begins with.
        dtype: The frame's dtype, which defines the scale of its means, too.
    """
    height, width = frame.shape[:2]
    last = min(first + target.shape[0], height)
    pixels, rows = target[: last - first, :width], frame[first:last]
    if target.dtype == np.uint8:
        np.copyto(pixels, rows if rows.dtype == np.uint8 else np.rint(rows), casting="unsafe")
    else:
        # With the channels outside, the loops of numpy run over pixels
        planes = pixels.transpose(2, 0, 1)
        np.copyto(planes, rows.transpose(2, 0, 1))
        if (scale := FRAME_SCALE[dtype.name]) != 1:
            np.divide(planes, np.float32(scale), out=planes)
    target[: last - first, width:] = pixels[:, reflect_index(width, width, target.shape[1])]
    target[last - first :] = target[reflect_index(height, last, first + target.shape[0]) - first]


def mirrored(pixels: View, height: int, width: int) -> list[tuple[View, View]]:
    """Return the pairs of views, target and source, that mirror a frame in GPU memory beyond its edges.

    Args:
        pixels: View (h, w, 3) that begins with the frame's pixels.
        height: Height of the frame, at most h, px.
        width: Width of the frame, at most w, px.

    Returns:
        The pairs; the driver must copy them in this order.
    """
    columns, rows = reflect_index(width, width, pixels.shape[1]), reflect_index(height, height, pixels.shape[0])
    return [
        (pixels[:height, width + index : width + index + 1], pixels[:height, column : column + 1])
        for index, column in enumerate(columns.tolist())
    ] + [
        (pixels[height + index : height + index + 1, :], pixels[row : row + 1, :])
        for index, row in enumerate(rows.tolist())
    ]
