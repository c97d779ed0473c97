"""Photographs (sRGB) converted to frames of the camera that the shipped weights were trained for."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ccnet.contract import FRAME_SCALE, CCNetError, Manifest

from .frames import Frame

InputSpace = Literal["srgb", "camera"]
"""Input colour space of a frame: sRGB, as in photographs, or linear RGB of the camera that the weights are for."""

TO_CIE = np.array(  # linear sRGB → CIE XYZ (IEC 61966-2-1)
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
TO_CIE /= TO_CIE.sum(axis=1, keepdims=True)  # white stays white: the camera's channels are scaled to give 1 for white
"""Matrix from linear sRGB to the NTIRE 2020 "clean" camera, whose channels are CIE's colour matching functions."""

_ROWS = 256  # at a time, so that a large frame takes little memory beside itself


def to_camera_rgb(frame: Frame, input_space: InputSpace, manifest: Manifest) -> Frame:
    """Return the frame in the camera's linear RGB; CCNetError where the graphs cannot take it."""
    if input_space == "camera":
        return frame
    if manifest.input == "uint8":
        raise CCNetError(
            "these graphs take uint8 frames of the weights' camera and no photographs: --input-space camera"
        )
    return from_srgb(frame)


def from_srgb(frame_HWC: Frame) -> npt.NDArray[np.float32]:
    """Convert a photograph to the linear RGB of the NTIRE 2020 "clean" camera, which the shipped weights are for.

    The camera's channels are CIE's colour matching functions, each scaled to give 1 for white.

    Args:
        frame_HWC: (H, W, 3) uint8, uint16 or float32 in [0, 1], gamma-encoded.

    Returns:
        (H, W, 3) float32 in [0, 1], linear.
    """
    scale = FRAME_SCALE[frame_HWC.dtype.name]
    table = None if frame_HWC.dtype == np.float32 else linear(np.arange(scale + 1) / scale)
    out = np.empty(frame_HWC.shape, np.float32)
    for top in range(0, len(frame_HWC), _ROWS):
        rows = frame_HWC[top : top + _ROWS]
        out[top : top + _ROWS] = (linear(rows) if table is None else table[rows]) @ TO_CIE.T
    return np.clip(out, 0, 1, out=out)


def linear(encoded: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Decode sRGB values in [0, 1] to linear light."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def encode(light: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Encode linear light in [0, 1] as sRGB values in [0, 1], the inverse of ``linear``."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
