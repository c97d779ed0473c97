"""Frames of any camera become linear frames of the weights' camera: radiometry, gains, colour matrix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, Manifest
from ccnet.runtime.io.arrays import as_frame
from ccnet.runtime.io.camera_frame import CameraFrame, FrameConverter
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.io.srgb import TO_CIE, InputSpace

from .adjustment import Adjustment, Gains
from .raw_file import DevelopedFrame

_ROWS = 256  # at a time, so that a large frame takes little memory beside itself


def prepared_space(radiometry: Radiometry | None, input_space: InputSpace | None) -> InputSpace:
    """Return the colour space of the frames: ``camera`` with a radiometry, else the one asked for, or ``srgb``."""
    if radiometry and input_space == "srgb":
        raise CCNetError(
            "--radiometry gives linear camera values, --input-space srgb expects photographs: choose one of them"
        )
    return input_space or ("camera" if radiometry else "srgb")


class FramePreparation:
    """The conversion of a user's frames before the network.

    The white balance acts on the camera's own channels (those of sRGB for a photograph), before the colour matrix.

    Attributes:
        manifest: Manifest of the graphs.
        input_space: Colour space of the frames; ``camera`` where a radiometry converts them.
        radiometry: The conversion of a sensor's samples, or None.
    """

    def __init__(
        self,
        manifest: Manifest,
        input_space: InputSpace | None,
        radiometry: Radiometry | None = None,
        adjustment: Adjustment = Adjustment(),  # noqa: B008 - frozen
        *,
        keep_gains: bool = False,
    ) -> None:
        """Refuse combinations that contradict each other or that the graphs cannot take.

        Args:
            manifest: Manifest of the graphs.
            input_space: Colour space of the frames; None is ``camera`` with a radiometry, else ``srgb``.
            radiometry: Conversion of the sensor's samples.
            adjustment: Exposure and white balance.
            keep_gains: Find the gains in the first frame and keep them for all, as a stream does.

        Raises:
            CCNetError: The options do not go together, or do not fit the graphs.
        """
        self.manifest = manifest
        self.input_space = prepared_space(radiometry, input_space)
        self.radiometry = radiometry
        self._adjustment = adjustment
        self._keep_gains = keep_gains
        self._gains: Gains | None = None
        self._kept: dict[str | None, Gains] = {}  # by camera, as one gain does not fit two
        self._development: dict[str, str] = {}
        self._of_latest: FramePreparation | None = None  # that of the latest frame's camera, if it is not this one
        self._convert = FrameConverter(self.input_space, manifest)
        if radiometry:
            radiometry.check_target(manifest)
        if manifest.input == "uint8" and not adjustment.changes_nothing:
            raise CCNetError(
                "these graphs take uint8 frames, --exposure and --white make float32: export with --input float32"
            )

    def for_frame(self, frame: Any) -> FramePreparation:
        """Return the preparation of a frame: for a developed raw file that of its camera, unless the user gave one.

        Args:
            frame: The frame.

        Returns:
            This preparation, or that of the raw file's camera, with the same exposure and white balance.

        Raises:
            CCNetError: The radiometry is for a sensor's samples and the frame a developed raw file, or the file's
                matrix does not fit the graphs.
        """
        if not isinstance(frame, DevelopedFrame):
            return self
        if self.radiometry:
            if self.radiometry.bayer or any(self.radiometry.black):
                raise CCNetError(
                    "--radiometry has bayer or black, but raw files come as R, G and B without a black level:"
                    " leave both out"
                )
            return self
        radiometry = frame.colour.radiometry
        prepare = FramePreparation(self.manifest, "camera", radiometry, self._adjustment, keep_gains=self._keep_gains)
        prepare._kept = self._kept
        return prepare

    def __call__(self, frame: Any) -> CameraFrame:
        """Return the frame (H, W, 3) of the weights' camera.

        Args:
            frame: The sensor's samples for a radiometry, a developed raw file, or a frame (H, W, 3) in the input space.

        Returns:
            The frame, float32 in [0, 1] unless nothing had to be changed.

        Raises:
            CCNetError: The frame does not fit the options.
        """
        if (prepare := self.for_frame(frame)) is not self:
            self._of_latest = prepare
            return prepare(frame)
        self._of_latest = None
        self._development = frame.colour.metadata() if isinstance(frame, DevelopedFrame) else {}
        if self._adjustment.changes_nothing:
            if self.radiometry is None:
                return self._convert(frame)
            return self.radiometry(np.asarray(frame)).view(CameraFrame)
        linear, matrix = self._linear(frame)
        self._gains = self._find_gains(linear)
        for top in range(0, len(linear), _ROWS):
            rows = linear[top : top + _ROWS]
            np.clip(rows * np.array(self._gains, np.float32), 0, 1, out=rows)
            if matrix is not None:
                np.clip(rows @ matrix.T, 0, 1, out=rows)
        return linear.view(CameraFrame)

    @property
    def latest(self) -> FramePreparation:
        """The preparation of the latest frame: a raw file brings its camera's."""
        return self._of_latest or self

    @property
    def white_level(self) -> Gains:
        """Values of a saturated sample of the latest frame, after all gains and before the colour matrix."""
        gains = np.minimum(self.radiometry.gains if self.radiometry else np.ones(3), 1)
        if self._gains is not None:
            gains = np.minimum(gains * self._gains, 1)
        red, green, blue = gains.tolist()
        return red, green, blue

    def metadata(self) -> dict[str, str]:
        """Return what was used for the latest frame, for the cube's metadata."""
        if self._of_latest:
            return self._of_latest.metadata()
        used = self._development | (self.radiometry.metadata() if self.radiometry else {})
        if self._gains is not None:
            used |= {"exposure": str(self._adjustment.exposure), "white": str(self._adjustment.white or "as it is")}
            used["gains"] = " ".join(f"{gain:.4f}" for gain in self._gains)
        return used

    def describe(self) -> str:
        """Return in a few words what the latest frame's values were taken for, and what was changed."""
        if self._of_latest:
            return self._of_latest.describe()
        words = [f"{self.input_space} frame"]
        if self.radiometry:
            words = [self.radiometry.describe()]
        if self._gains is not None:
            words.append(f"gains {', '.join(f'{gain:.3g}' for gain in self._gains)}")
        return ", ".join(words)

    def missing_matrix(self) -> str:
        """Return a warning if the radiometry has no colour matrix; empty if it has one, or there is no radiometry."""
        if self.radiometry is None or self.radiometry.matrix is not None:
            return ""
        return (
            f"{self.radiometry.describe()}: its values are taken as those of the weights' camera; another camera needs"
            " its colour matrix: 'ccnet camera fit'"
        )

    def _find_gains(self, linear: npt.NDArray[np.float32]) -> Gains:
        """Return the gains of a frame, or those that its camera's first frame got."""
        if not self._keep_gains:
            return self._adjustment.gains(linear)
        camera = self.radiometry.camera if self.radiometry else None
        if camera not in self._kept:
            self._kept[camera] = self._adjustment.gains(linear)
        return self._kept[camera]

    def _linear(self, frame: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Return a new linear frame in the channels of its source, and the matrix to the weights' camera."""
        if self.radiometry:
            matrix = self.radiometry.matrix
            linear = replace(self.radiometry, matrix=None)(np.asarray(frame))
            return linear, None if matrix is None else np.array(matrix, np.float32)
        pixels = as_frame(frame)
        transfer = "srgb" if self.input_space == "srgb" else "linear"
        linear = Radiometry(transfer=transfer)(pixels)
        return linear, TO_CIE.astype(np.float32) if transfer == "srgb" else None
