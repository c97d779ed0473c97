"""The conversion of a stream's frames before the network, with the metadata and warnings that belong to it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ccnet.metrics.correction import FrameCorrection
from ccnet.runtime.io.camera_frame import CameraFrame
from ccnet.runtime.io.cameras.preparation import FramePreparation
from ccnet.runtime.io.frames import Frame
from ccnet.runtime.quality.correction import correct_by

from .sources.source import Pixels

_logger = logging.getLogger(__name__)


class StreamPreparation:
    """The conversion of a stream's frames, which notes how the latest frame was converted.

    Attributes:
        metadata: Metadata of the latest frame's cube.
    """

    def __init__(self, prepare: FramePreparation, metadata: Mapping[str, str]) -> None:
        """Take the options of the stream.

        Args:
            prepare: Conversion of frames, which keeps its gains.
            metadata: Metadata of every cube.
        """
        self._prepare, self._common = prepare, dict(metadata)
        self._latest = prepare
        self.metadata: dict[str, str] = {**metadata, "space": prepare.input_space}
        self._warnings: set[str] = set()

    def __call__(self, pixels: Pixels) -> CameraFrame:
        """Return the frame (H, W, 3) of the weights' camera; CCNetError if it does not fit the options."""
        prepare = self._prepare.for_frame(pixels)
        self._warn_once(prepare.missing_matrix())
        frame, self._latest = prepare(pixels), prepare
        self.metadata.clear()  # what a raw file brings does not hold for a picture after it
        self.metadata.update(self._common | {"space": prepare.input_space} | prepare.metadata())
        return frame

    def correction(self, frame: Frame) -> FrameCorrection:
        """Return the correction of the latest frame's cube; CCNetError if the response of its camera is not known."""
        return correct_by(frame, self._latest)

    def _warn_once(self, warning: str) -> None:
        if warning and warning not in self._warnings:
            self._warnings.add(warning)
            _logger.warning("%s", warning)
