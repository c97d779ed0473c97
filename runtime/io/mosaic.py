"""Raw Bayer frames from files: one sample a pixel, as recorded. A bad file raises a CCNetError of one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, decode_errors_as

from .files import read_head
from .formats.npy import map_npy
from .frames import MAX_PIXELS, check_size, open_picture, picture_kind

_MODES = {"L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16}
"""Pillow's mode of a picture with one channel → dtype of its samples."""


def read_mosaic(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[Any]:
    """Read a raw frame of a Bayer sensor.

    Args:
        path: PNG, TIFF or BMP with one channel of 8 or 16 bits, or ``.npy`` of the returned shape and dtypes.
        max_pixels: Largest H·W.

    Returns:
        (H, W) uint8 or uint16, C-contiguous, in the sensor's own numbers.

    Raises:
        CCNetError: The file is not a whole file of these formats, has more than one channel, a side under 16 px or too
            many pixels.
    """
    path = Path(path)
    kind = picture_kind(path, read_head(path, "a raw Bayer frame"))
    with decode_errors_as(path, f"a whole {kind.upper()} file with one channel"):
        return _read_npy(path, max_pixels) if kind == "npy" else _read_picture(path, kind, max_pixels)


def _read_npy(path: Path, max_pixels: int) -> npt.NDArray[Any]:
    mapped = map_npy(path)
    if mapped.ndim != 2 or mapped.dtype.name not in ("uint8", "uint16"):
        raise CCNetError(f"{path}: {mapped.dtype} with shape {mapped.shape}, expected (H, W) in uint8 or uint16")
    check_size(path, mapped.shape[0], mapped.shape[1], max_pixels)
    return np.array(mapped, mapped.dtype.newbyteorder("="), order="C")


def _read_picture(path: Path, kind: str, max_pixels: int) -> npt.NDArray[Any]:
    with open_picture(path, kind, max_pixels) as image:
        if image.mode not in _MODES or getattr(image, "is_animated", False):
            raise CCNetError(
                f"{path}: mode {image.mode}, expected one channel of 8 or 16 bits, as --radiometry with bayer says"
            )
        # Never turned upright: the filter pattern would turn with it
        return np.ascontiguousarray(image, _MODES[image.mode])
