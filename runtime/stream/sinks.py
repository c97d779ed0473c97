"""Where a stream's cubes go: files in a folder, a Zarr group, a ZeroMQ socket.

A sink takes one cube at a time, strip by strip, and has it when the ``with`` block ends well; an exception there leaves
nothing of that cube behind, nor does a process that is killed.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError, make_folder
from ccnet.runtime.io.cubes import CubeWriter, open_cube
from ccnet.runtime.io.files import optional_module

Array = npt.NDArray[np.float32]
Format = Literal["hdr", "mat", "npy"]

_CHUNK = 128  # px a side of a Zarr chunk, which holds all bands: 2 MB
_QUEUED = 2  # cubes that a socket holds for a consumer that is behind
_PATIENCE_MS = 5000  # for a consumer to take a cube
_FAREWELL_MS = 10_000  # for what is queued when a socket closes


class Sink(Protocol):
    """Takes the cubes of a stream from one thread."""

    name: str

    def cube(
        self, name: str, height: int, width: int, metadata: Mapping[str, str]
    ) -> AbstractContextManager[CubeWriter]:
        """A writer of one cube (31, height, width). CCNetError where the sink cannot take it."""

    def close(self) -> None: ...


def open_sink(text: str, format: Format = "hdr") -> Sink:
    """What a user calls a sink: ``zmq:ADDRESS`` such as ``zmq:tcp://*:5555``, a Zarr group's name that ends in
    ``.zarr``, or else a folder, which gets a file of ``format`` for each frame.

    CCNetError where it cannot be made, or where its library is missing.
    """
    if text.startswith("zmq:"):
        return Socket(text.removeprefix("zmq:"))
    path = Path(text)
    if path.suffix == ".zarr":
        return ZarrGroup(path)
    if path.suffix[1:] in ("hdr", "mat", "npy"):
        raise CCNetError(f"{text}: a cube's name, but a stream has many: expected a folder, a .zarr or zmq:ADDRESS")
    return Files(path, format)


class Files:
    """A file for each cube, under the frame's name; one that is there already is never replaced."""

    def __init__(self, folder: Path, format: Format) -> None:
        make_folder(folder)
        self.name, self._folder, self._format = str(folder), folder, format

    def cube(
        self, name: str, height: int, width: int, metadata: Mapping[str, str]
    ) -> AbstractContextManager[CubeWriter]:
        path = self._folder / f"{name}.{self._format}"
        if path.exists():
            raise CCNetError(f"{path}: is there already and is kept; stream into another folder to make it again")
        return open_cube(path, height, width, metadata)

    def close(self) -> None:
        """Nothing is open between two cubes."""


class ZarrGroup:
    """A group with an array (31, H, W) a cube, in chunks of all bands of a tile; what it holds already stays.

    Arrays are numbered from 00000000 on; their attributes have the metadata and ``wavelength`` in nm. An array is made
    beside the group and renamed into it, so that whoever reads the group sees whole cubes only.
    """

    def __init__(self, path: Path) -> None:
        self._zarr = optional_module("zarr", "camera")
        self.name, self._path = str(path), path
        make_folder(path.parent)
        with _refusing(self.name):
            self._zarr.open_group(str(path), mode="a")
            numbers = [int(one.name) for one in path.iterdir() if re.fullmatch(r"\d{8}", one.name)]
        self._next = max(numbers, default=-1) + 1

    @contextmanager
    def cube(self, name: str, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
        partial = self._path.with_name(f".ccnet-{secrets.token_hex(6)}.partial")
        shape = (len(BANDS_NM), height, width)
        chunks = (len(BANDS_NM), min(height, _CHUNK), min(width, _CHUNK))
        try:
            with _refusing(self.name):
                array = self._zarr.open_array(str(partial), mode="w", shape=shape, chunks=chunks, dtype="<f4")
                array.attrs.update({"wavelength": list(BANDS_NM), "name": name, **metadata})
            yield _Region(self.name, array)
            with _refusing(self.name):
                partial.replace(self._path / f"{self._next:08}")
            self._next += 1
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def close(self) -> None:
        """Nothing is open between two cubes."""


class Socket:
    """A PUSH socket: each cube goes to one of the consumers that PULL, and waits for one, unlike with PUB.

    A message has two parts: a header in JSON (``name``, ``shape``, ``dtype``, ``wavelength`` in nm, metadata) and the
    values, (31, H, W) little-endian float32. A cube is the sink's when the socket has it, which keeps two for a
    consumer: so many are lost where a consumer is killed.
    """

    def __init__(self, address: str, patience_ms: int = _PATIENCE_MS) -> None:
        """address: to bind, in ZeroMQ's words. patience_ms: how long a cube waits for a consumer."""
        self._zmq = optional_module("zmq", "camera")
        self.name = f"zmq:{address}"
        # Its own context, which close ends: the shared one is never ended, and a process that exits drops what waits
        self._context = self._zmq.Context()
        self._socket = self._context.socket(self._zmq.PUSH)
        self._socket.setsockopt(self._zmq.SNDHWM, _QUEUED)
        self._socket.setsockopt(self._zmq.SNDTIMEO, patience_ms)
        self._socket.setsockopt(self._zmq.LINGER, _FAREWELL_MS)
        self._cube = np.empty((0, 0, 0), "<f4")
        try:
            self._socket.bind(address)
        except (self._zmq.ZMQError, UnicodeError) as error:
            self.close()
            raise CCNetError(f"{self.name}: cannot be bound ({error}), expected such as zmq:tcp://*:5555") from error

    @contextmanager
    def cube(self, name: str, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
        if self._cube.shape[1:] != (height, width):
            self._cube = np.empty((len(BANDS_NM), height, width), "<f4")
        yield _Region(self.name, self._cube)
        header = {**metadata, "name": name, "shape": self._cube.shape, "dtype": "<f4", "wavelength": BANDS_NM}
        try:
            self._socket.send_multipart([json.dumps(header).encode(), self._cube])
        except self._zmq.Again as error:
            raise CCNetError(f"{self.name}: no consumer took the cube in time; start one that PULLs") from error

    def close(self) -> None:
        """Wait for the consumer to take what is queued, up to 10 s, after which it is lost."""
        self._socket.close()
        self._context.term()


class _Region:
    """A CubeWriter of an array, in memory or on disk."""

    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def write(self, top: int, strip: Array) -> None:
        with _refusing(self._name):
            self._array[:, top : top + strip.shape[1]] = strip


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """What a disk or a Zarr store that is none of ours refuses, in one line."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError) as error:
        why = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise CCNetError(f"{name}: cannot be written ({why}); choose another place, with room") from error
