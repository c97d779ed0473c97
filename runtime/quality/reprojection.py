"""The check of a cube against its own frame, which needs no true cube; part by part, for cubes of any size.

Legend: a frame is (H, W, 3) as the graphs take it, of the weights' camera; a part of the cube is (31, h, w) float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ccnet.contract import FRAME_SCALE, CCNetError, Manifest, camera_response
from ccnet.metrics.reprojection import residual
from ccnet.runtime.io.frames import Frame
from ccnet.runtime.viz.render import Thumbnail

MOST_RESIDUAL = 0.03
MOST_NEGATIVE = 0.01
"""Limits for frames of the camera that the weights are for, measured with the default weights and with ``ccnet-cave``
(``docs/selfcheck.md``); other weights can need other limits.
"""

_ROWS = 64  # at a time, so that a wide frame takes little memory beside its part


class ReprojectionCheck:
    """The reprojection residual of a cube against its frame; a ``CubeWriter`` that takes each pixel once.

    Attributes:
        camera: Name of the camera that the weights are for.
        residuals: Every n-th pixel's residual (see ``Thumbnail``); NaN where the frame is saturated.
    """

    def __init__(self, frame: Frame, manifest: Manifest) -> None:
        """Start a check; CCNetError where the manifest does not name the camera of the weights."""
        if manifest.camera is None:
            raise CCNetError(
                "these artifacts do not say which camera their weights are for: export weights of one, or do without"
            )
        self.camera: str = manifest.camera["name"]
        self._response = camera_response(manifest.camera)
        self._frame = frame
        height, width = frame.shape[:2]
        self.residuals = Thumbnail(height, width, bands=1)
        self._residual, self._judged = 0.0, 0
        self._negative, self._light = 0.0, 0.0

    def write(self, top: int, part: npt.NDArray[np.float32], left: int = 0) -> None:
        """Add a part (31, h, w) of the cube to the check, from row ``top`` and column ``left`` on."""
        scale = np.float32(FRAME_SCALE[self._frame.dtype.name])
        for first in range(0, part.shape[1], _ROWS):
            rows = part[:, first : first + _ROWS]
            start = top + first
            pixels = self._frame[start : start + rows.shape[1], left : left + rows.shape[2]]
            frame = pixels.transpose(2, 0, 1) / scale
            found = residual(frame, rows, self._response)
            self.residuals.write(start, found[None], left)
            self._residual += float(np.nansum(found, dtype=np.float64))
            self._judged += int(np.count_nonzero(np.isfinite(found)))
            total, size = (float(values.sum(dtype=np.float64)) for values in (rows, np.abs(rows)))
            self._negative += (size - total) / 2
            self._light += size

    @property
    def score(self) -> float:
        """Mean residual of the pixels that are not saturated, 0 is perfect; NaN where all are."""
        return self._residual / self._judged if self._judged else float("nan")

    @property
    def negative(self) -> float:
        """Share of the cube that is negative, in [0, 1], which no spectrum can be."""
        return self._negative / self._light if self._light else 0.0

    def verdict(self) -> str:
        """Return one line: both figures, and whether the frame looks like a frame of the weights' camera."""
        if not self._judged:
            return "reprojection: not judged, every pixel of the frame is saturated"
        figures = f"reprojection: mean residual {self.score:.1%}, {self.negative:.1%} of the cube is negative"
        if self.score <= MOST_RESIDUAL and self.negative <= MOST_NEGATIVE:
            return f"{figures}; as on frames of the weights' camera"
        return (
            f"{figures}; WARNING: more than {MOST_RESIDUAL:.1%} or {MOST_NEGATIVE:.1%}, unlike frames of the weights'"
            f" camera ({self.camera}): another camera, light or encoding? See --input-space and --radiometry"
        )
