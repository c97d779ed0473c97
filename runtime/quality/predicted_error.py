"""The predicted error of a cube as a second cube, and as one number a frame; part by part, for cubes of any size.

Legend: a frame is (H, W, 3) as the graphs take it, of the weights' camera; a part of the cube is (31, h, w) float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ccnet.contract import FRAME_SCALE, ArtifactFolder, CCNetError, hidden_path
from ccnet.metrics import LIT
from ccnet.metrics.predicted_error import LEVEL, ErrorModel, relative_half_width
from ccnet.runtime.io.cubes import CubeWriter, map_cube, open_cube
from ccnet.runtime.io.formats.georeference import Georeference
from ccnet.runtime.io.formats.mapped_cube import Selection
from ccnet.runtime.io.frames import Frame

_PIXELS = 1 << 16
"""Most pixels at a time, 8 MB of half widths."""


class ErrorEstimate:
    """The half widths of a cube's 90 % intervals; a ``CubeWriter`` that takes each pixel of the cube once."""

    def __init__(self, frame: Frame, model: ErrorModel, writer: CubeWriter) -> None:
        """Begin a frame.

        Args:
            frame: Frame of the cube.
            model: Predicted error of the weights.
            writer: Takes the half widths, reflectance.
        """
        self._frame, self._model, self._writer = frame, model, writer
        self._absolute, self._relative, self._lit_relative = 0.0, 0.0, 0.0  # sums over pixels
        self._pixels, self._lit_pixels = 0, 0

    def write(self, top: int, part: npt.NDArray[np.float32], left: int = 0) -> None:
        """Predict the errors of a part (31, h, w) of the cube, from row ``top`` and column ``left`` on."""
        bands, height, width = part.shape
        scale = np.float32(FRAME_SCALE[self._frame.dtype.name])
        step = max(1, _PIXELS // width)
        for first in range(0, height, step):
            rows = part[:, first : first + step]
            start = top + first
            frame = self._frame[start : start + rows.shape[1], left : left + width].reshape(-1, 3).T / scale
            spectra = rows.reshape(bands, -1)
            half_width = self._model.half_width(frame, spectra)
            self._writer.write(start, half_width.reshape(rows.shape), left)
            self._count(half_width, spectra)

    @property
    def score(self) -> float:
        """Mean half width of the pixels, relative to the mean of their spectra + 0.02; NaN before the first part."""
        return self._relative / self._pixels if self._pixels else float("nan")

    def describe(self) -> str:
        """Return the mean half width in words: in reflectance, and relative to the spectra of the lit pixels alone."""
        half_width = self._absolute / self._pixels if self._pixels else float("nan")
        if self._lit_pixels:
            relative, lit = self._lit_relative / self._lit_pixels, self._lit_pixels / self._pixels
            where = f"± {relative:.1%} of a spectrum's mean in the {lit:.0%} of the pixels above {LIT}"
        else:
            where = f"no pixel is above {LIT}"
        return f"predicted error: ± {half_width:.2g} reflectance on average for {LEVEL:.0%} of the values; {where}"

    def _count(self, half_width: npt.NDArray[np.float32], spectra: npt.NDArray[np.float32]) -> None:
        """Add pixels (31, N) to the sums."""
        widths, means = half_width.mean(axis=0), spectra.mean(axis=0)
        lit = means > LIT
        self._absolute += float(widths.sum(dtype=np.float64))
        self._relative += float(relative_half_width(widths, means).sum(dtype=np.float64))
        self._lit_relative += float((widths[lit] / means[lit]).sum(dtype=np.float64))
        self._pixels += means.size
        self._lit_pixels += int(np.count_nonzero(lit))


@contextmanager
def open_error_cube(
    target: Path,
    frame: Frame,
    model: ErrorModel,
    metadata: Mapping[str, str],
    georeference: Georeference | None = None,
) -> Iterator[ErrorEstimate]:
    """Open the cube of half widths for writing. It appears under its name when it is complete, or not at all.

    Its metadata holds the number of the frame, which is known at the end: the half widths wait in a hidden file beside
    it until then.

    Args:
        target: File of the half widths, see ``open_cube``.
        frame: Frame of the cube, (H, W, 3).
        model: Predicted error of the weights.
        metadata: Fields of the file.
        georeference: Where on the earth the cube lies, if that is known.

    Yields:
        The estimate, which takes the parts of the cube itself.
    """
    height, width = frame.shape[:2]
    open_cube(target, height, width)  # refuses a target that cannot be written, before any work
    staging = hidden_path(target, ".npy")
    try:
        with open_cube(staging, height, width) as writer:
            estimate = ErrorEstimate(frame, model, writer)
            yield estimate
        fields = {**metadata, "content": f"predicted error: half width of the {LEVEL:.0%} interval, reflectance"}
        fields["predicted error"] = f"{estimate.score:.4f}"
        with open_cube(target, height, width, fields, georeference) as writer:
            _copy(staging, writer, height, width)
    finally:
        staging.unlink(missing_ok=True)


def error_target(cube: Path) -> Path:
    """Return the file of the half widths of a cube: beside it, ``photo.error.hdr`` for ``photo.hdr``."""
    return cube.with_name(f"{cube.stem}.error{cube.suffix}")


def read_error_model(folder: ArtifactFolder) -> ErrorModel:
    """Read the predicted error of an artifact folder.

    Args:
        folder: The open folder.

    Returns:
        The model.

    Raises:
        CCNetError: The folder has none, or it is damaged or belongs to other weights.
    """
    found = [artifact for artifact in folder.manifest.artifacts if artifact.kind == "error"]
    if not found:
        raise CCNetError(
            f"{folder.path}: has no predicted error: 'ccnet fit-error' makes it beside the weights, then export again"
        )
    path = folder.path / found[0].file
    model = ErrorModel.from_bytes(path, folder.read(found[0]))
    if model.weights_sha256 != folder.manifest.weights_sha256:
        raise CCNetError(f"{path}: is of other weights than the graphs: 'ccnet fit-error', then export again")
    return model


def _copy(source: Path, writer: CubeWriter, height: int, width: int) -> None:
    step = max(1, _PIXELS // width)
    with map_cube(source) as cube:
        for top in range(0, height, step):
            rows, columns = Selection(top, min(top + step, height)), Selection(0, width)
            writer.write(top, cube.read(range(cube.shape[0]), rows, columns))
