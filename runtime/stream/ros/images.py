"""Images of ROS: pixels from messages, and the fields of messages from cubes.

The functions take any object with the fields of ``sensor_msgs/msg/Image`` or ``CompressedImage``, so that a node and a
bag share them: rclpy's messages have them, and so have those of rosbags.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError

Pixels = npt.NDArray[Any]

_COLOUR_LAYOUTS = {
    "rgb": (3, slice(3)),
    "bgr": (3, slice(2, None, -1)),
    "rgba": (4, slice(3)),
    "bgra": (4, slice(2, None, -1)),
}
"""Name of an encoding without its bits → samples per pixel, and which of them are R, G and B."""

_BAYER_LAYOUTS = {f"bayer_{pattern.lower()}": pattern for pattern in ("RGGB", "BGGR", "GBRG", "GRBG")}
"""Name of an encoding without its bits → filter pattern, as ``Radiometry.bayer`` has it."""

_EXPECTED = "rgb, bgr, rgba, bgra, mono or bayer_* of 8 or 16 bits"


class ImageMessage(Protocol):
    """The fields of ``sensor_msgs/msg/Image`` that hold the pixels."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedImageMessage(Protocol):
    """The field of ``sensor_msgs/msg/CompressedImage`` that holds the pixels."""

    data: Any


@dataclass(frozen=True)
class ImageFields:
    """The fields of an outgoing ``sensor_msgs/msg/Image``, without its header."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    """Always 0: samples are little-endian."""
    step: int
    """Bytes of a row."""
    data: npt.NDArray[np.uint8]
    """All rows, (height · step,)."""


def image_pixels(message: ImageMessage, bayer: str | None = None) -> Pixels:
    """Return the pixels of an image.

    Args:
        message: Image with the encoding rgb, bgr, rgba, bgra, mono or bayer_*, of 8 or 16 bits of either byte order;
            rows may be padded.
        bayer: Filter pattern of the sensor, such as ``RGGB``, for encodings with one sample per pixel; None for colour.

    Returns:
        (H, W, 3) RGB without alpha, or (H, W) samples of a sensor; uint8 or uint16, C-contiguous.

    Raises:
        CCNetError: The encoding is another, does not fit ``bayer``, or the data are shorter than the rows.
    """
    (count, order), dtype = _layout(message.encoding, bayer)
    if message.is_bigendian:
        dtype = dtype.newbyteorder(">")
    height, width, step = message.height, message.width, message.step
    row = width * count * dtype.itemsize
    data = np.frombuffer(message.data, np.uint8)
    needed = step * (height - 1) + row
    if min(height, width) < 1 or step < row or data.size < needed:
        raise CCNetError(
            f"the message has {data.size} bytes in rows of {step}, expected {max(needed, row)} or more of "
            f"{width}×{height} px {message.encoding} in rows of {row} or more; it is cut or damaged"
        )
    samples = np.ndarray((height, width, count), dtype, data, strides=(step, count * dtype.itemsize, dtype.itemsize))
    pixels = samples[..., order] if count > 1 else samples[..., 0]
    return np.ascontiguousarray(pixels, dtype.newbyteorder("="))


def _layout(encoding: str, bayer: str | None) -> tuple[tuple[int, slice], np.dtype[Any]]:
    """Return samples per pixel, their order, and dtype of an encoding; CCNetError if it is not supported."""
    name, bits = (encoding[:-2], 16) if encoding.endswith("16") else (encoding[:-1], 8)
    pattern = _BAYER_LAYOUTS.get(name)
    single = name == "mono" or pattern is not None
    if not encoding.endswith(("8", "16")) or not (single or name in _COLOUR_LAYOUTS):
        raise CCNetError(f"the encoding is {encoding!r}, expected {_EXPECTED}; convert the images")
    if single and bayer is None:
        raise CCNetError(
            f"the encoding is {encoding}, one sample per pixel, expected colour; describe the sensor with --radiometry "
            f'and "bayer": "{pattern or "RGGB"}"'
        )
    if not single and bayer is not None:
        raise CCNetError(f"the encoding is {encoding}, expected bayer_* or mono, since --radiometry has a bayer")
    if pattern and pattern != bayer:
        raise CCNetError(
            f'the encoding is {encoding}, expected the pattern {bayer} of --radiometry; correct its "bayer"'
        )
    return (1, slice(1)) if single else _COLOUR_LAYOUTS[name], np.dtype(np.uint8 if bits == 8 else np.uint16)


def compressed_pixels(message: CompressedImageMessage, read: Callable[[Path], Pixels]) -> Pixels:
    """Return the pixels of a compressed image.

    Args:
        message: Image whose data are a JPEG, a PNG, or another picture that ``read`` knows.
        read: Reads a picture's file, such as ``read_frame`` or ``read_mosaic``.

    Returns:
        The picture's pixels.

    Raises:
        CCNetError: The data are no whole picture.
    """
    with tempfile.TemporaryDirectory(prefix="ccnet-") as folder:
        path = Path(folder, "picture")
        path.write_bytes(np.frombuffer(message.data, np.uint8).tobytes())
        try:
            return read(path)
        except CCNetError as error:
            raise CCNetError(str(error).replace(str(path), "the message's picture")) from error


def image_fields(image_HWC: npt.NDArray[Any]) -> ImageFields:
    """Return the fields of an outgoing image.

    Args:
        image_HWC: (H, W, 3) uint8 for the encoding ``rgb8``, or (H, W, C) float32 for ``32FC1``, ``32FC31`` …, the
            names that cv_bridge gives to C channels.

    Returns:
        The fields; the data share the memory of a C-contiguous array.
    """
    height, width, count = image_HWC.shape
    colour = image_HWC.dtype == np.uint8
    samples = np.ascontiguousarray(image_HWC, np.uint8 if colour else "<f4")
    encoding = "rgb8" if colour else f"32FC{count}"
    return ImageFields(height, width, encoding, 0, width * count * samples.itemsize, samples.reshape(-1).view(np.uint8))
