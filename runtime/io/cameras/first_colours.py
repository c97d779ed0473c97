"""The colours of a stream of raw files: each camera's first file gives the white balance and the matrix of all."""

from __future__ import annotations

import logging

import numpy as np

from .raw_file import RawColour

_logger = logging.getLogger(__name__)

_TOLERANCE = 1e-3
"""Difference of white balances, and of matrices, that a camera's rounding may cause."""


class FirstColours:
    """The choice of the colour of a camera's first file for every file of that camera.

    A white balance that changes from file to file, as a camera's automatic one does, would change the spectrum of one
    surface from cube to cube. A line in the log names the first file that was shot with another.
    """

    def __init__(self) -> None:
        self._first: dict[str | None, RawColour] = {}
        self._warned = False

    def __call__(self, shot: RawColour) -> RawColour:
        """Return the colour of the first file of this camera.

        Args:
            shot: The colour that a file was shot with.

        Returns:
            The colour to develop it with.
        """
        first = self._first.setdefault(shot.radiometry.camera, shot)
        difference = _difference(first, shot)
        if difference and not self._warned:
            self._warned = True
            _logger.warning(
                "%s: its %s is not that of %s, which the stream keeps: fix the camera's white balance, or give each"
                " file its own with 'ccnet reconstruct' (printed once)",
                shot.file,
                difference,
                first.file,
            )
        return first


def _difference(first: RawColour, shot: RawColour) -> str:
    """Return the name of the first thing that differs; empty if nothing does."""
    if not np.allclose(first.white_balance, shot.white_balance, rtol=_TOLERANCE):
        return "white balance"
    first_matrix, matrix = (np.array(each.radiometry.matrix or np.zeros((3, 3))) for each in (first, shot))
    return "" if np.allclose(first_matrix, matrix, atol=_TOLERANCE) else "colour matrix"
