"""Cubes and frames from files, for the page; a frame is reconstructed first, on the disk."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import ArtifactFolder, CCNetError, Manifest, camera_response, decode_errors_as
from ccnet.runtime.io.camera_frame import FrameConverter
from ccnet.runtime.io.cubes import map_cube, open_cube
from ccnet.runtime.io.formats.mapped_cube import MappedCube
from ccnet.runtime.io.formats.npy import map_npy
from ccnet.runtime.io.formats.zarr_array import map_zarr, zarr_arrays
from ccnet.runtime.io.frames import FRAME_SUFFIXES, is_picture, read_frame
from ccnet.runtime.io.srgb import InputSpace
from ccnet.runtime.quality.predicted_error import error_target
from ccnet.runtime.reconstructor import Reconstructor

from .scene import ShownCube, ShownFrame

_logger = logging.getLogger(__name__)

MOST_CUBES = 256
"""Most cubes of a group that the page lists."""

_EITHER = (".npy", ".tif", ".tiff")
"""Suffixes of cubes and of frames."""


class Opener:
    """Opens what the page shows, and keeps it open until ``close``.

    Args:
        reconstructor: Opens the artifacts; called when the first frame needs them.
        artifacts: Folder of the artifacts, whose manifest names the camera.
        input_space: Colour space of frames.
        progress: Told of a frame that is reconstructed: its name, rows that are done, all rows.
    """

    def __init__(
        self,
        reconstructor: Callable[[], Reconstructor],
        artifacts: Path,
        input_space: InputSpace,
        progress: Callable[[str, int, int], None] = lambda name, done, rows: None,
    ) -> None:
        self._open_reconstructor, self._artifacts, self._input_space = reconstructor, artifacts, input_space
        self._progress = progress
        self._stack = ExitStack()
        self._reconstructor: Reconstructor | None = None
        self._folder: Path | None = None

    def open(self, path: Path, frame: Path | None = None) -> list[ShownCube]:
        """Open a cube, the cubes of a Zarr group, or a frame.

        Args:
            path: The file, or the folder of a Zarr group or array.
            frame: The frame that a cube was reconstructed from, if it is to be shown beside it.

        Returns:
            The cubes.

        Raises:
            CCNetError: The file is missing, damaged or of another kind.
        """
        if path.is_dir():
            return self._open_zarr(path)
        if (cube := _map_or_none(path)) is None:
            return [self._reconstruct(path)]
        self._stack.callback(cube.close)
        shown_frame = self._frame_of(frame, cube) if frame else None
        return [ShownCube(name=path.name, cube=cube, frame=shown_frame, error=self._error_of(path, cube))]

    def close(self) -> None:
        """Close all files and remove what was reconstructed."""
        self._stack.close()

    def _error_of(self, path: Path, cube: MappedCube) -> MappedCube | None:
        """Open the predicted error that lies beside a cube; None, with a warning, where it does not belong to it."""
        beside = error_target(path)
        if not beside.is_file():
            return None
        if beside.stat().st_mtime < path.stat().st_mtime:
            _logger.warning(
                "%s: older than the cube, left out; 'ccnet reconstruct --error' makes it again,"
                " 'touch' keeps it if both were copied",
                beside,
            )
            return None
        try:
            error = map_cube(beside)
        except CCNetError as damage:
            _logger.warning("%s; the cube is shown without its predicted error", damage)
            return None
        self._stack.callback(error.close)
        if error.shape != cube.shape:
            _logger.warning("%s: shape %s, expected the cube's %s, left out", beside, error.shape, cube.shape)
            return None
        return error

    def _open_zarr(self, path: Path) -> list[ShownCube]:
        arrays = zarr_arrays(path)
        shown = []
        for folder in arrays[:MOST_CUBES]:
            with decode_errors_as(folder, "a Zarr array of one cube"):
                shown.append(ShownCube(name=f"{path.name}/{folder.name}", cube=map_zarr(folder)))
        return shown

    def _frame_of(self, path: Path, cube: MappedCube) -> ShownFrame:
        """Read a cube's frame, with its linear values where the artifacts name the camera."""
        frame = read_frame(path, as_stored=self._input_space == "camera")
        if frame.shape[:2] != cube.shape[1:]:
            (height, width), (_, rows, columns) = frame.shape[:2], cube.shape
            raise CCNetError(f"{path}: {width}×{height} px, expected the cube's {columns}×{rows} px; choose its frame")
        if not self._artifacts.is_dir():
            return ShownFrame(picture=self._on_disk(frame))
        manifest = ArtifactFolder.open(self._artifacts).manifest
        return self._shown_frame(frame, FrameConverter(self._input_space, manifest)(frame), manifest)

    def _shown_frame(self, frame: npt.NDArray[Any], linear: npt.NDArray[Any], manifest: Manifest) -> ShownFrame:
        picture = self._on_disk(frame)
        if manifest.camera is None:
            return ShownFrame(picture=picture)
        response = camera_response(manifest.camera)
        return ShownFrame(picture=picture, linear=self._on_disk(linear), response=response)

    def _reconstruct(self, path: Path) -> ShownCube:
        """Reconstruct a frame to a file that is removed with this Opener."""
        frame = read_frame(path, as_stored=self._input_space == "camera")
        if self._reconstructor is None:
            self._reconstructor = self._stack.enter_context(self._open_reconstructor())
        pixels = self._reconstructor.camera_frame(frame)
        height, width = frame.shape[:2]
        target = self._new_file()
        with open_cube(target, height, width) as writer:
            for top, strip in self._reconstructor.strips(pixels):
                writer.write(top, strip)
                self._progress(path.name, top + strip.shape[1], height)
        cube = map_cube(target)
        shown_frame = self._shown_frame(frame, pixels, self._reconstructor.manifest)
        return ShownCube(name=path.name, cube=cube, frame=shown_frame, note="reconstructed from this frame")

    def _new_file(self) -> Path:
        if self._folder is None:
            self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ccnet-view-")))
        return self._folder / f"{sum(1 for _ in self._folder.iterdir())}.npy"

    def _on_disk(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return an array mapped from a file, so that it takes memory only where it is read."""
        path = self._new_file()
        np.save(path, array, allow_pickle=False)
        return map_npy(path)


def _map_or_none(path: Path) -> MappedCube | None:
    """Open a cube; None for a file that is a frame."""
    suffix = path.suffix.lower()
    if suffix not in _EITHER or not path.is_file():
        is_frame = suffix in FRAME_SUFFIXES or (path.is_file() and is_picture(path))
        return None if is_frame and suffix not in _EITHER else map_cube(path)
    try:
        return map_cube(path)
    except CCNetError as cube_error:
        try:
            read_frame(path, as_stored=True)
        except CCNetError:
            raise cube_error from None
        return None
