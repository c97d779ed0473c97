"""The response by which a cube is corrected with its frame (``ccnet.metrics.correction``)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, camera_response
from ccnet.metrics.correction import FrameCorrection
from ccnet.runtime.io.cameras.preparation import FramePreparation
from ccnet.runtime.io.frames import Frame

Array = npt.NDArray[np.float32]

CORRECTED = {"corrected": "by the frame, through the response of its camera"}
"""Metadata of a corrected cube."""


def correct_by(frame: Frame, prepare: FramePreparation) -> FrameCorrection:
    """Return the correction of the cube of a frame.

    Args:
        frame: The frame that the graphs take.
        prepare: Its conversion, which has just been applied.

    Returns:
        The correction.

    Raises:
        CCNetError: The response of the frame's channels is not known, see ``known_response``.
    """
    prepare = prepare.latest
    matrix = prepare.radiometry.matrix if prepare.radiometry else None
    response = known_response(prepare)
    return FrameCorrection(frame, response, None if matrix is None else np.array(matrix), prepare.white_level)


def known_response(prepare: FramePreparation) -> Array:
    """Return the response (31, 3) of the channels of the frames that the graphs take.

    Args:
        prepare: The conversion of the frames.

    Returns:
        That of the frames' own camera behind its colour matrix, or that of the weights' camera without a matrix.

    Raises:
        CCNetError: The frames are photographs, or the response is not known.
    """
    if prepare.input_space == "srgb":
        raise CCNetError(
            "--correct needs linear frames of a camera whose response is known, and a photograph has a tone curve: give"
            " the raw file, or leave --correct out"
        )
    radiometry = prepare.radiometry
    if radiometry and radiometry.matrix is not None:
        if radiometry.frame_response is None:
            raise CCNetError(
                f"--correct needs the response of {radiometry.camera or 'the camera'}, and only its colour matrix is"
                " known: make the --radiometry with 'ccnet camera fit', or leave --correct out"
            )
        return radiometry.frame_response
    if prepare.manifest.camera is None:
        raise CCNetError(
            "--correct needs the response of the weights' camera, which these artifacts do not name: export weights of"
            " one, or leave --correct out"
        )
    return camera_response(prepare.manifest.camera)
