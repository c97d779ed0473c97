"""The work on one frame of a survey. A worker process opens the artifacts once."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from ccnet.contract import BANDS_NM, CCNetError, make_folder, sha256
from ccnet.runtime.backends.select import BackendName, Precision
from ccnet.runtime.gpu.out_of_memory import is_out_of_memory
from ccnet.runtime.io.cubes import CubeFormat, as_fields, cube_files, open_cube
from ccnet.runtime.io.formats.cube_writer import replace_when_complete, write_errors
from ccnet.runtime.io.formats.envi import write_envi_layers
from ccnet.runtime.io.formats.georeference import Georeference
from ccnet.runtime.io.formats.geotiff import write_layers
from ccnet.runtime.io.frames import Frame
from ccnet.runtime.io.srgb import InputSpace
from ccnet.runtime.reconstructor import Reconstructor
from ccnet.runtime.tiles.projection import Projection

from .manifest import Row
from .sources import ArchiveFrame, read_archive_frame


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The arguments of ``Reconstructor.open``: a process has one Reconstructor for each set of them.

    Attributes:
        artifacts: Absolute path of the artifact folder, the same on every worker.
        input_space: Colour space of the frames.
        backend: Library that runs the graphs.
        precision: Precision of ``decode``.
        memory: Memory budget of a frame, bytes.
        threads: CPU threads.
        device: Index of the GPU.
    """

    artifacts: str
    input_space: InputSpace = "srgb"
    backend: BackendName = "auto"
    precision: Precision | None = None
    memory: int | None = None
    threads: int | None = None
    device: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """The work that a worker does on each frame: reconstruct it and write its result.

    Attributes:
        engine: The arguments of the Reconstructor that computes the frames.
        out: Absolute path of the folder of results, the same on every worker.
        projection: Map to K values a pixel, (K, H, W) float32. None: whole cubes.
        format: File format of the results; projections can be ``hdr``, ``npy`` and ``tif``.
    """

    engine: Engine
    out: str
    projection: Projection | None = None
    format: CubeFormat = "hdr"

    def output(self, frame: ArchiveFrame) -> str:
        """Return the path of a frame's result, relative to ``out``."""
        return f"{frame.name}.{self.format}"

    def is_done(self, frame: ArchiveFrame) -> bool:
        """Return whether the result is there; results appear when they are whole."""
        try:
            return Path(self.out, self.output(frame)).is_file()
        except OSError:  # such as a name that is too long: the frame's own work says so in its row
            return False


def run_frame(task: Task, frame: ArchiveFrame) -> Row:
    """Make the result of one frame and return its row; an error of the frame is the reason in its row, and not raised.

    A CCNetError says so if the artifacts cannot be opened, which no other frame would survive.

    Args:
        task: The work on a frame.
        frame: The frame.

    Returns:
        The row of the manifest.
    """
    reconstruct = _reconstructor(task.engine)
    target, started = Path(task.out, task.output(frame)), time.perf_counter()
    about = reconstruct.provenance()
    shape, digest, reason, full = (0, 0), "", "", False
    try:
        if not task.is_done(frame):  # by a worker that died before it said so
            pixels, georeference = read_archive_frame(frame.location, as_stored=task.engine.input_space == "camera")
            shape = (pixels.shape[0], pixels.shape[1])
            _write(reconstruct, pixels, target, task, frame, georeference)
        digest = sha256(cube_files(target)[0])
    except Exception as error:  # one frame of thousands must not end the survey
        reason = _reason(error)
        full = _is_full(target, task, shape)
    return Row(
        frame=frame.name,
        location=frame.location,
        status="failed" if reason else "done",
        output="" if reason else task.output(frame),
        reason=reason,
        seconds=time.perf_counter() - started,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        backend=f"{about['backend']}, {about['precision']}",
        sha256=digest,
        height=shape[0],
        width=shape[1],
        finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        disk_full=full,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, CCNetError):
        return str(error)
    return "out of memory" if is_out_of_memory(error) else " ".join(f"{type(error).__name__}: {error}".split())[:300]


_lock = threading.Lock()


def _reconstructor(engine: Engine) -> Reconstructor:
    """Return this process's Reconstructor, which lives as long as the process; its threads share it."""
    with _lock:
        return _open(engine)


@functools.lru_cache(maxsize=1)
def _open(engine: Engine) -> Reconstructor:
    return Reconstructor.open(
        engine.artifacts,
        input_space=engine.input_space,
        backend=engine.backend,
        precision=engine.precision,
        memory=engine.memory,
        threads=engine.threads,
        device=engine.device,
    )


def _write(
    reconstruct: Reconstructor,
    pixels: Frame,
    target: Path,
    task: Task,
    frame: ArchiveFrame,
    georeference: Georeference | None,
) -> None:
    height, width = pixels.shape[:2]
    metadata = {"source": frame.location, "space": task.engine.input_space, **reconstruct.provenance()}
    if task.projection is None:
        with open_cube(target, height, width, metadata, georeference) as writer:
            for top, strip in reconstruct.strips(pixels):
                writer.write(top, strip)
        return
    values = reconstruct.project(pixels, task.projection)
    make_folder(target.parent)
    if task.format == "tif":
        write_layers(target, values, task.projection.names, metadata, georeference)
        return
    if task.format == "hdr":
        write_envi_layers(target, values, task.projection.names, as_fields(metadata), georeference)
        return
    with replace_when_complete(target) as partial, write_errors(target), partial.open("wb") as file:
        np.save(file, values)


def _is_full(target: Path, task: Task, shape: tuple[int, int]) -> bool:
    """Return whether the disk has less space than a result takes."""
    values = len(BANDS_NM) if task.projection is None else len(task.projection.names)
    try:
        folder = target.parent if target.parent.is_dir() else Path(task.out)
        return shutil.disk_usage(folder).free < 4 * values * shape[0] * shape[1]
    except OSError:
        return False
