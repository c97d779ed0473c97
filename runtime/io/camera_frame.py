"""The input colour space: frames from any source become linear frames of the weights' camera.

Legend: a frame is (H, W, 3) uint8, uint16 or float32 in [0, 1].
"""

from __future__ import annotations

import functools
import sys
import warnings
from types import FrameType
from typing import Any, get_args

import numpy as np

from ccnet.contract import FRAME_SCALE, CCNetError, Manifest

from .arrays import as_frame
from .cameras.raw_file import DevelopedFrame
from .frames import Frame
from .srgb import InputSpace, to_camera_rgb


class CameraFrame(np.ndarray[Any, np.dtype[Any]]):
    """A frame whose values are linear and of the weights' camera, so that it is never converted again."""


class FrameConverter:
    """Checks frames and converts them to the weights' camera.

    Attributes:
        input_space: Colour space of the frames. None: camera values are assumed, with a warning for integer frames.
    """

    def __init__(self, input_space: InputSpace | None, manifest: Manifest) -> None:
        """Refuse an unknown input colour space, and photographs for graphs that take uint8 frames.

        Args:
            input_space: Colour space of the frames.
            manifest: Manifest of the graphs.

        Raises:
            CCNetError: The input colour space is unknown, or the graphs cannot take it.
        """
        if input_space is not None and input_space not in get_args(InputSpace):
            expected = " or ".join(get_args(InputSpace))
            raise CCNetError(f"input_space is {input_space!r}, expected {expected}")
        if input_space == "srgb" and manifest.input == "uint8":
            raise CCNetError(
                "these graphs take uint8 frames of the weights' camera and no photographs: use the input space camera"
                " (--input-space camera), or export with --input float32"
            )
        self.input_space = input_space
        self._manifest = manifest

    def __call__(self, frame: Any) -> CameraFrame:
        """Check a frame, and convert it unless it is a CameraFrame; a CCNetError says what is wrong with it.

        Args:
            frame: Array (H, W, 3) of numpy, or of another library, see ``io.arrays.as_frame``.

        Returns:
            The frame (H, W, 3). For ``srgb`` it is float32 and new, and so it is for a developed raw file, whose own
            colour matrix converts it; otherwise it is a view of ``frame``.
        """
        pixels = as_frame(frame)
        self._check(pixels)
        if isinstance(pixels, CameraFrame):
            return pixels
        if isinstance(pixels, DevelopedFrame):
            pixels.colour.radiometry.check_target(self._manifest)
            return pixels.colour.radiometry(np.asarray(pixels)).view(CameraFrame)
        if self.input_space is None:
            if pixels.dtype != np.float32:
                _warn_of_assumed_space()
            return pixels.view(CameraFrame)
        return to_camera_rgb(pixels, self.input_space, self._manifest).view(CameraFrame)

    def describe(self) -> str:
        """Return the input colour space in a few words."""
        return self.input_space or "camera (assumed: no input_space was passed)"

    def _check(self, frame: Frame) -> None:
        allowed = ["uint8"] if self._manifest.input == "uint8" else list(FRAME_SCALE)
        if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape or frame.dtype.name not in allowed:
            raise CCNetError(
                f"frame is {frame.dtype} with shape {frame.shape}, expected (H, W, 3) in {', '.join(allowed)}"
            )
        if frame.dtype == np.float32 and not (frame.min() >= 0 and frame.max() <= 1):
            raise CCNetError(f"frame holds {frame.min():g} to {frame.max():g}, expected float32 in [0, 1]: scale it")


def _levels_within_the_package() -> int:
    """Return how many calls, from the caller on, are of this package: a warning is for the program above it."""
    level = 0
    frame: FrameType | None = sys._getframe(1)
    while frame and frame.f_globals.get("__name__", "").startswith("ccnet."):
        level, frame = level + 1, frame.f_back
    return level


@functools.cache  # once per process
def _warn_of_assumed_space() -> None:
    warnings.warn(
        "Reconstructor.open was called without input_space, so the values of integer frames are taken as linear values"
        ' of the weights\' camera: pass input_space="srgb" for photographs and video, or input_space="camera"',
        UserWarning,
        stacklevel=_levels_within_the_package() + 1,
    )
