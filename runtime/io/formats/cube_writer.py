"""Writing a cube part by part, in any format: checks, error messages, and files that appear complete or not at all.

Legend: a cube is (31, H, W) float32; a part is (31, h, w), its rows ``top`` to ``top + h``, its columns ``left`` to
``left + w``. A strip is a part of the whole width.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, hidden_path

from .cube_checks import BAND_COUNT, CONTENT_KEY

Array = npt.NDArray[np.float32]


class CubeWriter(Protocol):
    """A target that takes a cube part by part: rows in any order, the parts of a row from left to right."""

    def write(self, top: int, part: Array, left: int = 0) -> None:
        """Store rows ``top`` to ``top + h`` and columns ``left`` to ``left + w`` of the cube.

        Args:
            top: First row of the part in the cube.
            part: (31, h, w) float32, such as a strip (31, h, W).
            left: First column of the part in the cube.

        Raises:
            ValueError: The part has another shape or dtype, lies outside the cube, or columns before it are missing.
            CCNetError: The disk refuses it.
        """


class PartWriter:
    """A ``CubeWriter`` that checks parts, counts the missing rows and passes on each band of a part.

    ``put(band, top, left, rows)`` stores rows (h, w) of one band.
    """

    def __init__(self, path: Path, height: int, width: int, put: Callable[[int, int, int, Array], None]) -> None:
        self._path, self._width, self._put = path, width, put
        self._written = np.zeros(height, np.int32)  # columns of each row, from the left

    def write(self, top: int, part: Array, left: int = 0) -> None:
        """Store a part; see ``CubeWriter.write``."""
        self._check(top, part, left)
        rows, right = slice(top, top + part.shape[1]), left + part.shape[2]
        with write_errors(self._path):
            for band, values in enumerate(part):
                self._put(band, top, left, values)
        self._written[rows] = np.maximum(self._written[rows], right)

    def check_complete(self) -> None:
        """Raise CCNetError where rows of the cube were never written, or not all of their columns."""
        missing, height = np.count_nonzero(self._written < self._width), self._written.size
        if missing:
            raise CCNetError(f"{self._path}: {missing} of the cube's {height} rows were never written; nothing is kept")

    def _check(self, top: int, part: Array, left: int) -> None:
        height, width = part.shape[1:] if part.ndim == 3 else (0, 0)
        if part.dtype != np.float32 or part.shape != (BAND_COUNT, height, width):
            raise ValueError(f"part is {part.dtype} {part.shape}, expected float32 ({BAND_COUNT}, h, w)")
        if not (0 <= top < top + height <= self._written.size and 0 <= left < left + width <= self._width):
            raise ValueError(
                f"part is rows {top} to {top + height} and columns {left} to {left + width}, expected them in 0 to"
                f" {self._written.size} and 0 to {self._width}"
            )
        if (before := self._written[top : top + height].min()) < left:
            raise ValueError(f"part is from column {left} on, expected columns from {before} on first")


def describe_content(metadata: Mapping[str, str]) -> str:
    """Return what the values of a cube with this metadata are, for a format that has a field for a description."""
    return metadata.get(CONTENT_KEY, f"reflectance, {BAND_COUNT} bands reconstructed from an RGB frame")


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn errors of the disk into a CCNetError of one line; h5py raises RuntimeError as well as OSError.

    Args:
        path: The file, for the error message.

    Yields:
        None.

    Raises:
        CCNetError: The disk refused a write.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        why = " ".join((getattr(error, "strerror", None) or str(error)).split())[:200]
        raise CCNetError(f"{path}: cannot be written ({why}); choose a folder that you can write, with room") from error


@contextmanager
def replace_when_complete(path: Path) -> Iterator[Path]:
    """Write a file under a hidden name, and rename it to ``path`` when the block succeeds.

    Args:
        path: The name that the file gets at the end; an older file of that name is replaced.

    Yields:
        The hidden name, beside ``path``. The file is removed when the block fails.
    """
    partial = hidden_path(path)
    try:
        yield partial
        with write_errors(path):
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def publish_new(parts: Sequence[tuple[Path, Path]]) -> bool:
    """Give whole files their names, all or none, and never replace a file.

    Of two processes that publish the same names at the same time, one gets them.

    Args:
        parts: Pairs of a file and its name, in the order of publication; a reader looks for the last name.

    Returns:
        True if the files have their names, False if one of the names is taken.

    Raises:
        OSError: The disk refused it.
    """
    published = []
    try:
        for part, name in parts:
            _link(part, name)
            published.append(name)
    except OSError as error:
        for name in published:
            name.unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            return False
        raise
    for part, _ in parts:
        part.unlink(missing_ok=True)
    return True


def _link(part: Path, name: Path) -> None:
    """Make ``name`` a second name of a file; FileExistsError if it is taken."""
    try:
        name.hardlink_to(part)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        name.open("xb").close()  # a disk without hard links: claim the name, then replace the claim
        part.replace(name)


@contextmanager
def open_band_sequential(
    path: Path, height: int, width: int, write_header: Callable[[BinaryIO], None] | None = None
) -> Iterator[CubeWriter]:
    """Open a file of float32 values, one band after the other.

    Args:
        path: The file to write.
        height: Rows of the cube.
        width: Columns of the cube.
        write_header: Writes what comes before the values.

    Yields:
        The writer. It uses plain writes: a mapped file's dirty pages would count as memory of this process.
    """
    with replace_when_complete(path) as partial:
        with write_errors(path):
            # Unbuffered, so that a full disk raises in write and not again in close
            file = partial.open("xb", buffering=0)
        with file:
            with write_errors(path):
                if write_header:
                    write_header(file)
                start = file.tell()

            def put(band: int, top: int, left: int, rows: Array) -> None:
                # Rows of the whole width are together in the file
                for block in [rows] if rows.shape[1] == width else rows[:, None]:
                    file.seek(start + 4 * (width * (band * height + top) + left))
                    data = np.ascontiguousarray(block, "<f4").data.cast("B")
                    while data:
                        data = data[file.write(data) :]
                    top += 1

            writer = PartWriter(path, height, width, put)
            yield writer
            writer.check_complete()
