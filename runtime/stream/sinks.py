"""Sinks of a stream's cubes: files in a folder, a Zarr group, a ROS 2 bag, a ZeroMQ socket."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.io.cubes import CubeFormat, CubeWriter
from ccnet.runtime.io.files import as_text, optional_module

from .file_sinks import CubeFolder, ZarrGroup
from .ros.bag_sink import RosBagSink
from .sink import ArrayWriter, CubeExistsError, Sink, as_texts

__all__ = [
    "CubeExistsError",
    "CubeFolder",
    "RosBagSink",
    "Sink",
    "ZarrGroup",
    "ZeroMQSocket",
    "open_sink",
    "parse_sink",
]

QUEUED_CUBES = 2
"""Number of cubes that a socket holds for a consumer that is behind."""

SEND_TIMEOUT_MS = 5000
"""Longest time until a consumer takes a cube."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+]+):")  # two characters or more: C: is a drive

_CONNECT_TIMEOUT_S = 1.0
"""Longest time until the process behind a socket file answers."""

LINGER_MS = 10_000
"""Longest time until a consumer takes the queued cubes after a socket is closed."""


def parse_sink(text: str, format: CubeFormat = "hdr") -> Callable[[], Sink]:
    """Return the function that opens the sink that a text names; nothing is opened or created yet.

    Args:
        text: ``zmq:ADDRESS`` such as ``zmq:tcp://*:5555``, ``rosbag:PATH`` for a new ROS 2 bag, a Zarr group whose
            name ends in ``.zarr``, or a folder. A folder with a colon in its name exists, or the text has a separator
            before the colon, as in ``./run:1``.
        format: Format of the files in a folder.

    Returns:
        The function; it raises CCNetError if the sink cannot be created, or its library is not installed.

    Raises:
        CCNetError: The scheme before the first colon is unknown, or the text is the name of a single cube.
    """
    if text.startswith("zmq:"):
        return lambda: ZeroMQSocket(text.removeprefix("zmq:"))
    if text.startswith("rosbag:"):
        return lambda: RosBagSink(text.removeprefix("rosbag:"))
    path = Path(text)
    if (scheme := _SCHEME.match(text)) and not os.path.lexists(path.parts[0]):
        raise CCNetError(
            f"{text}: unknown sink {scheme[1]!r}, expected zmq:ADDRESS, rosbag:PATH, a .zarr or a folder; write"
            f" ./{text} for a folder of that name"
        )
    if path.suffix == ".zarr":
        return lambda: ZarrGroup(path)
    if path.suffix[1:] in get_args(CubeFormat):
        raise CCNetError(
            f"{text}: is the name of one cube, but a stream has many; expected a folder, a .zarr, rosbag:PATH or "
            "zmq:ADDRESS"
        )
    return lambda: CubeFolder(path, format)


def open_sink(text: str, format: CubeFormat = "hdr") -> Sink:
    """Open the sink that a text names, see ``parse_sink``, to be closed by the caller."""
    return parse_sink(text, format)()


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
            CCNetError: The address cannot be bound, another process has it, or pyzmq is not installed.
        """
        self._zmq = optional_module("zmq", "camera")
        self.name = f"zmq:{address}"
        if address.startswith("ipc://"):
            _check_socket_file(self.name, address.removeprefix("ipc://"))
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
        yield ArrayWriter(self.name, self._cube)
        named = f"{self._sent:08}" if name is None else as_text(name)
        header = {
            **as_texts(metadata),
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


def _check_socket_file(name: str, path: str) -> None:
    """Check that ZeroMQ may replace the file of an ``ipc://`` address: its bind replaces any file without a word.

    Args:
        name: The sink's name, for the message.
        path: The address without its scheme; a file that is missing, or that nobody listens at, passes.

    Raises:
        CCNetError: Another process listens at the file, or it is no socket.
    """
    try:
        mode = Path(path).lstat().st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISSOCK(mode):
        raise CCNetError(f"{name}: the file is no socket and is kept, expected a free name; choose another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.settimeout(_CONNECT_TIMEOUT_S)
            client.connect(path)
        except ConnectionRefusedError:
            return  # left behind by a process that was killed
        except OSError as error:
            raise CCNetError(f"{name}: in use or not accessible ({error}), expected a free address") from error
    raise CCNetError(f"{name}: another process sends from this address, expected a free address; choose another")
