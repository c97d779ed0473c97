"""Frame in, cube out: the context once from the whole frame, then the cube tile by tile; or both in one pass.

Legend: a frame is (H, W, 3) uint8, uint16 or float32 in [0, 1]; a cube is (31, H, W) float32, bands ascending from 400
to 700 nm, reflectance-like; the context is (1, N) float32, everything that a tile must know of the rest of its frame.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, ArtifactFolder, CCNetError, Closeable, Manifest
from ccnet.runtime.backends.select import BackendName, Precision, Selection, select
from ccnet.runtime.io.arrays import output_array
from ccnet.runtime.io.camera_frame import CameraFrame, FrameConverter
from ccnet.runtime.io.cubes import open_cube
from ccnet.runtime.io.frames import Frame
from ccnet.runtime.io.srgb import InputSpace

from .description import describe, provenance
from .tiles.frame_path import FramePath, PathFrame
from .tiles.host_path import ENCODE_PIXELS
from .tiles.opening import open_path
from .tiles.planner import FramePlan
from .tiles.projection import Projection

Array = npt.NDArray[np.float32]
Out = TypeVar("Out")


class Reconstructor(Closeable):
    """Makes cubes from frames with the files of one artifact folder. Use it in ``with`` or call ``close``.

    Frames may have any size from 1×1 px. Memory stays within a budget, except for a cube that is returned as a whole.
    Threads may share a Reconstructor: the tiles of their frames take turns.

    Attributes:
        manifest: Manifest of the artifact folder.
        selection: The backend and the files that it runs.
    """

    @classmethod
    def open(
        cls,
        folder: str | Path | ArtifactFolder,
        *,
        input_space: InputSpace | None = None,
        backend: BackendName = "auto",
        precision: Precision | None = None,
        tile: int | None = None,
        memory: int | None = None,
        threads: int | None = None,
        encode_pixels: int = ENCODE_PIXELS,
        device: int = 0,
        window: int | None = None,
    ) -> Reconstructor:
        """Load a folder that ``ccnet export`` wrote, with engines if ``ccnet build`` added some.

        A CCNetError says what is wrong: the manifest, a file's SHA-256, the copy of the manifest in an ONNX file, an
        option, or a backend that is not available here.

        Args:
            folder: Path of the artifact folder, or the open folder.
            input_space: Colour space of all frames: ``srgb`` for photographs and video (gamma-encoded), or ``camera``
                for linear frames of the weights' camera. None is ``camera`` with a warning, as in version 0.1.0.
            backend: Library that runs the files, see ``backends.select.select``. A backend that was asked for is never
                replaced by another.
            precision: Precision of ``decode`` and ``full`` (``encode`` is FP32). None is the engine's own, and FP32 in
                ONNX Runtime.
            tile: Side of all tiles that a frame is decoded in, px. None: the tiles of each frame have the height and
                width that compute the fewest pixels within ``memory``. An engine's limits take precedence.
            memory: Budget for a frame, its tiles and, in ``strips``, a strip of output, bytes, see ``tiles.memory``. A
                cube that is returned as a whole is not in it. None: on a CPU half of the memory that is free now, at
                most 2 GB, on a GPU half of its free memory; an engine takes the memory that it was built for.
            threads: CPU threads of ONNX Runtime. None is one per core.
            encode_pixels: Maximum of pixels of a frame that ``encode`` reads as it is; see ``encode``.
            device: Index of the GPU, for all backends that use one.
            window: Old name of ``tile``.

        Returns:
            The Reconstructor.
        """
        tile = _tile(tile, window)
        selection = select(ArtifactFolder.open(folder), backend, precision, device)
        return cls.open_selection(
            selection,
            input_space=input_space,
            tile=tile,
            memory=memory,
            threads=threads,
            encode_pixels=encode_pixels,
        )

    @classmethod
    def open_selection(
        cls,
        selection: Selection,
        *,
        input_space: InputSpace | None = None,
        tile: int | None = None,
        memory: int | None = None,
        threads: int | None = None,
        encode_pixels: int = ENCODE_PIXELS,
    ) -> Reconstructor:
        """Load files that were selected before. The arguments are those of ``open``."""
        path = open_path(selection, tile=tile, memory=memory, threads=threads, encode_pixels=encode_pixels)
        try:
            return cls(selection, path, input_space)
        except BaseException:
            path.close()
            raise

    def __init__(self, selection: Selection, path: FramePath, input_space: InputSpace | None = None) -> None:
        """Take over an open path, and close it in ``close``. ``open`` calls this.

        Args:
            selection: The backend and the files that were loaded.
            path: Computes contexts and cubes.
            input_space: Colour space of all frames, see ``open``.

        Raises:
            CCNetError: The input colour space does not fit the manifest.
        """
        self.manifest: Manifest = selection.folder.manifest
        self.selection = selection
        self._path = path
        self._convert = FrameConverter(input_space, self.manifest)

    @property
    def encode_pixels(self) -> int:
        """Maximum of pixels that ``encode`` reads."""
        return self._path.encode_pixels

    @encode_pixels.setter
    def encode_pixels(self, count: int) -> None:
        self._path.encode_pixels = count

    @property
    def tile(self) -> int:
        """Side of the largest square tile, px: what was asked for, unless the engine or the memory limits it."""
        return self._path.tile

    @property
    def window(self) -> int:
        """Old name of ``tile``."""
        return self.tile

    @property
    def input_space(self) -> InputSpace | None:
        """Colour space of the frames, as passed to ``open``."""
        return self._convert.input_space

    @overload
    def __call__(self, frame: Frame, context: Array | None = None, *, out: None = None) -> Array: ...

    @overload
    def __call__(self, frame: Frame, context: Array | None = None, *, out: Out) -> Out: ...

    def __call__(self, frame: Frame, context: Array | None = None, *, out: Any = None) -> Any:
        """Return the cube of a frame.

        A CCNetError says so if the frame is not RGB of a known dtype and range, or if the cube is not finite. With
        ``out`` and camera frames, nothing as large as a frame is allocated.

        Args:
            frame: Frame (H, W, 3), also by DLPack or ``__cuda_array_interface__``, see ``io.arrays.as_frame``. With
                engines and the input space ``camera``, a frame on their GPU of the graphs' dtype stays there; its
                values are not checked.
            context: Context to decode under, such as that of an earlier frame. None is the frame's own.
            out: Array (31, H, W) float32 to fill and return. With engines, it may also be on their GPU, by DLPack or
                ``__cuda_array_interface__``, such as a tensor of torch or a ``DeviceArray``: the cube stays there.

        Returns:
            The cube (31, H, W) float32, complete.
        """
        camera_frame = self._frame(frame)
        context = self._path.context(camera_frame, context)
        cube = output_array(out, (len(BANDS_NM), *camera_frame.shape[:2]), self._path.device)
        self._path.fill(camera_frame, context, (0, camera_frame.shape[0]), cube)
        return cube

    def project(
        self, frame: Frame, projection: Projection, context: Array | None = None, *, out: Array | None = None
    ) -> Array:
        """Return bands, ratios or a linear map of the cube, computed tile by tile: no cube is held in memory.

        Args:
            frame: Frame (H, W, 3).
            projection: The map from 31 bands to K values.
            context: Context to decode under. None is the frame's own.
            out: Array (K, H, W) float32 to fill and return.

        Returns:
            The values (K, H, W) float32.
        """
        camera_frame = self._frame(frame)
        context = self._path.context(camera_frame, context)
        out = output_array(out, (len(projection.names), *camera_frame.shape[:2]))
        for rows, columns, values in self._path.tiles(camera_frame, context, (0, camera_frame.shape[0])):
            projection(values, out[:, rows, columns])
            del values  # frees its memory for the next tile
        return out

    def camera_frame(self, frame: Frame) -> CameraFrame:
        """Check a frame and convert it to linear values of the weights' camera.

        All methods do this. Call it yourself to convert a frame once for several calls: they accept the result as it
        is. A CCNetError says so if the frame is not RGB of a known dtype and range.

        Args:
            frame: Frame (H, W, 3) in the input colour space, or a CameraFrame.

        Returns:
            The frame (H, W, 3).
        """
        return self._convert(frame)

    def encode(self, frame: Frame) -> Array:
        """Return the context (1, N) of a frame.

        A frame of more than ``encode_pixels`` pixels is reduced to means of square blocks: at most that number, and at
        most 256² of them (docs/contexts.md has the error).

        Args:
            frame: Frame (H, W, 3).

        Returns:
            The context (1, N) float32.
        """
        return self._path.encode(self._frame(frame))

    def parts(self, frame: Frame, context: Array | None = None) -> Iterator[tuple[int, int, Array]]:
        """Return an iterator of the cube in parts, as tiles give them: from top to bottom, and from left to right.

        It takes less memory than ``strips``, if each part is dropped (``del``) before the next is taken.

        Args:
            frame: Frame (H, W, 3).
            context: Context to decode under. None is the frame's own.

        Returns:
            The first row and column of a part in the cube, and its values (31, h, w) float32, valid until the next.
            The parts cover each pixel once.
        """
        camera_frame = self._frame(frame)
        return self._parts(camera_frame, self._path.context(camera_frame, context))

    def strips(self, frame: Frame, context: Array | None = None) -> Iterator[tuple[int, Array]]:
        """Return an iterator of the cube from top to bottom.

        Args:
            frame: Frame (H, W, 3).
            context: Context to decode under. None is the frame's own.

        Returns:
            Pairs of the first row and a strip (31, h, W) float32. All strips are views of one buffer: copy a strip to
            keep it when the next is taken.
        """
        camera_frame = self._frame(frame)
        return self._strips(camera_frame, self._path.context(camera_frame, context))

    def save(
        self, frame: Frame, path: str | Path, metadata: Mapping[str, str] | None = None, context: Array | None = None
    ) -> None:
        """Write the cube part by part. The file appears when it is whole, or not at all.

        Args:
            frame: Frame (H, W, 3).
            path: File of a cube, see ``io.cubes.open_cube``.
            metadata: Entries for the header of the file.
            context: Context to decode under. None is the frame's own.
        """
        camera_frame = self._frame(frame)
        height, width = camera_frame.shape[:2]
        with open_cube(Path(path), height, width, metadata) as writer:
            for top, left, part in self._parts(camera_frame, self._path.context(camera_frame, context)):
                writer.write(top, part, left)
                del part  # frees its memory for the next tile

    def plan(self, frame: Frame) -> FramePlan:
        """Return the tiles that a frame (H, W, 3) is decoded in; a CCNetError if none fits the memory budget."""
        return self._path.plan(self.camera_frame(frame))

    def takes_one_pass(self, frame: Frame) -> bool:
        """Return whether ``full`` makes the cube of a frame (H, W, 3) that has no context, in one pass."""
        return self._path.takes_one_pass(self._frame(frame))

    def describe(self) -> dict[str, str]:
        """Return the backend, files, precision, input colour space and tiles in words, for tables."""
        return describe(self.selection, self._path, self._convert)

    def provenance(self) -> dict[str, str]:
        """Return weights, backend, precision and version, for the metadata of a cube's file."""
        return provenance(self.manifest, self.describe())

    def close(self) -> None:
        """Free the backends, after the tile that another thread may be running; harmless when called twice."""
        self._path.close()

    def _frame(self, frame: Any) -> PathFrame:
        """Return a frame that may stay on the GPU, or the converted one."""
        kept = self._path.keep(frame) if self.input_space == "camera" else None
        return self.camera_frame(frame) if kept is None else kept

    def _parts(self, frame: PathFrame, context: Array | None) -> Iterator[tuple[int, int, Array]]:
        for rows, columns, values in self._path.tiles(frame, context, (0, frame.shape[0])):
            yield rows.start, columns.start, values
            del values  # frees its memory for the next tile

    def _strips(self, frame: PathFrame, context: Array | None) -> Iterator[tuple[int, Array]]:
        rows = self._path.strips(frame)
        if context is None and len(rows) > 1:  # tiles shrank since: all strips share one context
            context = self._path.encode(frame)
        tallest = max(last - first for first, last in rows)
        buffer = np.empty((len(BANDS_NM), tallest, frame.shape[1]), np.float32)
        for first, last in rows:
            strip = buffer[:, : last - first]
            self._path.fill(frame, context, (first, last), strip, strips=True)
            yield first, strip


def _tile(tile: int | None, window: int | None) -> int | None:
    """Return the tile's side, px, from the option or from its old name; None if neither is set."""
    if window is not None:
        if tile is not None:
            raise CCNetError(f"tile is {tile} and window is {window}, expected one of them: window is the old name")
        warnings.warn("window is the old name of tile: pass tile", DeprecationWarning, stacklevel=3)
        return window
    return tile
