"""The interface of a stream's sinks, and the parts that they share.

A sink takes one cube at a time, strip by strip, and has it when the ``with`` block ends without an exception. After an
exception, or when the process is killed, nothing of that cube is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError
from ccnet.runtime.io.cubes import CubeWriter
from ccnet.runtime.io.files import as_text

Array = npt.NDArray[np.float32]


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


class ArrayWriter:
    """A CubeWriter into an array, in memory or on disk."""

    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def write(self, top: int, part: Array, left: int = 0) -> None:
        """Store a part (31, h, w) of a cube, from row ``top`` and column ``left`` on."""
        with write_errors(self._name):
            self._array[:, top : top + part.shape[1], left : left + part.shape[2]] = part


def as_texts(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as text that every format can store."""
    return {key: as_text(value) for key, value in metadata.items()}


@contextmanager
def write_errors(name: str) -> Iterator[None]:
    """Turn an error of the disk, or of a Zarr store that is damaged, into a CCNetError of one line.

    Args:
        name: The sink's name, for the message.

    Yields:
        None.

    Raises:
        CCNetError: The disk or the store refused it.
    """
    try:
        yield
    except CCNetError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise CCNetError(f"{name}: cannot be written ({reason}); choose another place with enough space") from error
