"""Sinks of a stream's cubes: files in a folder, a Zarr group, a ZeroMQ socket.

A sink takes one cube at a time, strip by strip, and has it when the ``with`` block ends without an exception. After an
exception, or when the process is killed, nothing of that cube is left.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError, hidden_path, make_folder
from ccnet.runtime.io.cubes import CubeFormat, CubeWriter, cube_files, open_cube
from ccnet.runtime.io.files import as_text, optional_module
from ccnet.runtime.io.formats.cube_writer import publish_new

Array = npt.NDArray[np.float32]

_logger = logging.getLogger(__name__)

CHUNK_PX = 128
"""Side of a Zarr chunk, which holds all bands: 2 MB."""

QUEUED_CUBES = 2
"""Number of cubes that a socket holds for a consumer that is behind."""

SEND_TIMEOUT_MS = 5000
"""Longest time until a consumer takes a cube."""

LINGER_MS = 10_000
"""Longest time until a consumer takes the queued cubes after a socket is closed."""


class CubeExistsError(CCNetError):
    """The error of a cube that was there before its frame came."""


class Sink(Protocol):
    """A receiver of a stream's cubes, used from one thread."""

    name: str
    """Name in messages."""

    def cube(
        self, name: str | None, height: int, width: int, metadata: Mapping[str, str]
    ) -> AbstractContextManager[CubeWriter]:
        """Return a context manager with the writer of one cube (31, height, width).

        Args:
            name: Name of the frame; None for a frame of a source without names, which the sink numbers.
            height: Rows of the cube.
            width: Columns of the cube.
            metadata: Facts to store with the cube.

        Returns:
            Context manager; when it ends without an exception, the sink has the cube.

        Raises:
            CubeExistsError: The sink has a cube of this name, and keeps it.
            CCNetError: The sink cannot take the cube.
        """

    def close(self) -> None:
        """Free the sink."""


def open_sink(text: str, format: CubeFormat = "hdr") -> Sink:
    """Open the sink that a text names.

    Args:
        text: ``zmq:ADDRESS`` such as ``zmq:tcp://*:5555``, a Zarr group whose name ends in ``.zarr``, or a folder.
        format: Format of the files in a folder.

    Returns:
        The sink, to be closed by the caller.

    Raises:
        CCNetError: The sink cannot be created, or its library is not installed.
    """
    if text.startswith("zmq:"):
        return ZeroMQSocket(text.removeprefix("zmq:"))
    path = Path(text)
    if path.suffix == ".zarr":
        return ZarrGroup(path)
    if path.suffix[1:] in get_args(CubeFormat):
        raise CCNetError(
            f"{text}: is the name of one cube, but a stream has many; expected a folder, a .zarr or zmq:ADDRESS"
        )
    return CubeFolder(path, format)


class CubeFolder:
    """A folder with a file for each cube, under the frame's name or a number; a file that exists is never replaced.

    A cube is written under a hidden name and gets its own when it is whole. Numbers go on after the largest one in the
    folder, so that a camera that starts again loses nothing, and streams that share a folder take turns.
    """

    def __init__(self, folder: Path, format: CubeFormat) -> None:
        make_folder(folder)
        self.name, self._folder, self._format = str(folder), folder, format
        self._next = _next_number(path.stem for path in folder.iterdir())

    @contextmanager
    def cube(self, name: str | None, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
        """Yield the writer of a new file; CCNetError if its name is taken or it cannot be written."""
        if name is not None:
            self._check_free(name, metadata.get("source", ""))
        hidden = hidden_path(self._folder / "cube", f".{self._format}")
        try:
            with open_cube(hidden, height, width, metadata) as writer:
                yield writer
            with _write_errors(self.name):
                if name is None:
                    self._publish_numbered(hidden)
                elif not self._publish(hidden, name):
                    raise CCNetError(f"{self._path(name)}: another process wrote it meanwhile, its file is kept")
        finally:
            for part in cube_files(hidden):
                part.unlink(missing_ok=True)

    def close(self) -> None:
        """Do nothing: no file is open between two cubes."""

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.{self._format}"

    def _check_free(self, name: str, source: str) -> None:
        """Raise CubeExistsError if the folder has the frame's cube, CCNetError if it has another file of that name."""
        files = cube_files(self._path(name))
        taken = [path for path in files if path.exists()]
        if not taken:
            return
        if len(taken) < len(files):
            raise CCNetError(f"{taken[0]}: exists without the rest of a cube and is kept; stream into another folder")
        # ENVI alone says where a cube is from; the last part of a path is the same however the path was written
        if self._format == "hdr" and source and Path(recorded := _source_of(files[-1])).name != Path(source).name:
            raise CCNetError(
                f"{files[-1]}: is the cube of another source, {recorded[:80]!r}, and is kept; use another folder"
            )
        raise CubeExistsError(f"{files[-1]}: exists and is kept; stream into another folder to write it again")

    def _publish(self, hidden: Path, name: str) -> bool:
        return publish_new(list(zip(cube_files(hidden), cube_files(self._path(name)), strict=True)))

    def _publish_numbered(self, hidden: Path) -> None:
        while not self._publish(hidden, f"{self._next:08}"):
            self._next += 1
        self._next += 1


class ZarrGroup:
    """A Zarr group with an array (31, H, W) for each cube, in chunks of 128×128 px; arrays that exist are kept.

    Arrays are numbered from 00000000 on, in the group's own Zarr format; their attributes have the metadata and
    ``wavelength`` in nm. An array is written beside the group and renamed into it, so that a reader of the group finds
    complete cubes only, and several streams may write into one group.
    """

    def __init__(self, path: Path) -> None:
        self._zarr = optional_module("zarr", "camera")
        self.name, self._path = str(path), path
        make_folder(path.parent)
        with _write_errors(self.name):
            group = self._zarr.open_group(str(path), mode="a")
            self._format = getattr(getattr(group, "metadata", None), "zarr_format", None)  # Zarr 2 knows one format
            self._next = _next_number(array.name for array in path.iterdir())

    @contextmanager
    def cube(self, name: str | None, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
        """Yield the writer of a new array; CCNetError if it cannot be written."""
        partial = hidden_path(self._path)
        shape = (len(BANDS_NM), height, width)
        chunks = (len(BANDS_NM), min(height, CHUNK_PX), min(width, CHUNK_PX))
        named = {} if name is None else {"name": as_text(name)}
        options: dict[str, Any] = {"shape": shape, "chunks": chunks, "dtype": "<f4"}
        if self._format is not None:
            options["zarr_format"] = self._format
        try:
            with _write_errors(self.name):
                array = self._zarr.open_array(str(partial), mode="w", **options)
                array.attrs.update({"wavelength": list(BANDS_NM), **named, **_as_texts(metadata)})
            yield _ArrayWriter(self.name, array)
            with _write_errors(self.name):
                self._publish(partial)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def close(self) -> None:
        """Do nothing: no file is open between two cubes."""

    def _publish(self, partial: Path) -> None:
        """Move an array to the next free number: a folder that is not empty cannot be replaced."""
        while True:
            target, self._next = self._path / f"{self._next:08}", self._next + 1
            try:
                partial.rename(target)
            except OSError as error:
                if not target.exists():
                    raise
                _logger.debug("%s is another stream's (%s)", target, error)
            else:
                return


class ZeroMQSocket:
    """A PUSH socket: each cube waits for one of the consumers that PULL, and goes to that consumer alone.

    A message has two parts: a header in JSON (``name``, ``shape``, ``dtype``, ``wavelength`` in nm, metadata) and the
    values, (31, H, W) little-endian float32. A cube counts as delivered when the socket has it. The socket holds two
    cubes for a consumer: they are lost if the consumer is killed.
    """

    def __init__(self, address: str, send_timeout_ms: int = SEND_TIMEOUT_MS) -> None:
        """Bind the socket.

        Args:
            address: Address to bind, such as ``tcp://*:5555``.
            send_timeout_ms: Longest time until a consumer takes a cube.

        Raises:
            CCNetError: The address cannot be bound, or pyzmq is not installed.
        """
        self._zmq = optional_module("zmq", "camera")
        self.name = f"zmq:{address}"
        # A context that close can end: the shared context never ends, and a process that exits drops the queued cubes
        self._context = self._zmq.Context()
        self._socket = self._context.socket(self._zmq.PUSH)
        self._socket.setsockopt(self._zmq.SNDHWM, QUEUED_CUBES)
        self._socket.setsockopt(self._zmq.SNDTIMEO, send_timeout_ms)
        self._socket.setsockopt(self._zmq.LINGER, LINGER_MS)
        self._cube = np.empty((0, 0, 0), "<f4")
        self._sent = 0
        try:
            self._socket.bind(address)
        except (self._zmq.ZMQError, UnicodeError) as error:
            self.close()
            raise CCNetError(
                f"{self.name}: cannot be bound ({error}), expected an address such as zmq:tcp://*:5555"
            ) from error

    @contextmanager
    def cube(self, name: str | None, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
        """Yield the writer of the next message; CCNetError if no consumer takes it in time."""
        if self._cube.shape[1:] != (height, width):
            self._cube = np.empty((len(BANDS_NM), height, width), "<f4")
        yield _ArrayWriter(self.name, self._cube)
        named = f"{self._sent:08}" if name is None else as_text(name)
        header = {
            **_as_texts(metadata),
            "name": named,
            "shape": self._cube.shape,
            "dtype": "<f4",
            "wavelength": BANDS_NM,
        }
        self._sent += 1
        try:
            self._socket.send_multipart([json.dumps(header).encode(), self._cube])
        except self._zmq.Again as error:
            raise CCNetError(f"{self.name}: no consumer took the cube in time; start one that PULLs") from error

    def close(self) -> None:
        """Wait up to 10 s for the consumer to take the queued cubes; then they are lost."""
        self._socket.close()
        self._context.term()


def _source_of(header: Path) -> str:
    """Return the source that the ENVI header of a cube names; empty if it names none."""
    with header.open(encoding="utf-8", errors="replace") as file:
        found = re.search(r"^ccnet source = (.*)$", file.read(1 << 20), re.MULTILINE)
    return found[1].strip() if found else ""


def _as_texts(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: as_text(value) for key, value in metadata.items()}


def _next_number(names: Iterable[str]) -> int:
    """Return the number after the largest that is a name of eight digits."""
    return max((int(name) for name in names if re.fullmatch(r"\d{8}", name)), default=-1) + 1


class _ArrayWriter:
    """A CubeWriter into an array, in memory or on disk."""

    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def write(self, top: int, part: Array, left: int = 0) -> None:
        """Store a part (31, h, w) of a cube, from row ``top`` and column ``left`` on."""
        with _write_errors(self._name):
            self._array[:, top : top + part.shape[1], left : left + part.shape[2]] = part


@contextmanager
def _write_errors(name: str) -> Iterator[None]:
    """Turn an error of the disk, or of a Zarr store that is damaged, into a CCNetError of one line."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise CCNetError(f"{name}: cannot be written ({reason}); choose another place with enough space") from error
