"""The source of pictures and raw files: single files, or the files of a folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ccnet.contract import prefix_errors
from ccnet.runtime.io.cameras.first_colours import FirstColours
from ccnet.runtime.io.cameras.raw_file import RAW_SUFFIXES, is_raw, read_raw
from ccnet.runtime.io.files import optional_module
from ccnet.runtime.io.frames import FRAME_SUFFIXES, frame_paths, read_frame, result_names

from .source import Pixels

_logger = logging.getLogger(__name__)

_CAMERA_COPIES = (".jpg", ".jpeg", ".heic", ".heif")
"""Suffixes of the pictures that a camera writes beside its raw files."""


class Pictures:
    """Files in their order; for a folder, those that it holds when it is opened, sorted by name.

    A camera's first raw file gives the white balance and the matrix of all its raw files.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        read: Callable[[Path], Pixels] = read_frame,
        describe: Callable[[Path], str] | None = None,
    ) -> None:
        """Find the pictures.

        Args:
            paths: Files and folders.
            read: Reads one picture that is no raw file.
            describe: Describes its colour space; None where that does not matter.

        Raises:
            CCNetError: A folder holds no frame, or there are raw files and rawpy is not installed.
        """
        files = [file for path in paths for file in _files(path)]
        if raw_file := next(filter(is_raw, files), None):
            with prefix_errors(raw_file):
                optional_module("rawpy", "raw")
        self._describe, self.colour = describe, ""
        self._read, self._named = read, iter(list(zip(result_names(files), files, strict=True)))
        self._develop = partial(read_raw, choose_colour=FirstColours())
        self.expected: int | None = len(files)

    def read(self) -> tuple[str, Pixels] | None:
        """Return the name and pixels of the next picture; CCNetError if it is damaged, None at the end."""
        if (named := next(self._named, None)) is None:
            return None
        name, path = named
        if is_raw(path):
            self.colour = ""
            return name, self._develop(path)
        pixels = self._read(path)
        self.colour = self._describe(path) if self._describe else ""
        return name, pixels

    def close(self) -> None:
        """Do nothing: no file is open between two frames."""


def _files(path: Path) -> list[Path]:
    """Return a file, or the files of a folder without the pictures that show the same as a raw file beside them."""
    files = frame_paths([path], (*FRAME_SUFFIXES, *RAW_SUFFIXES))
    if not path.is_dir():
        return files
    shots = {file.stem for file in files if is_raw(file)}
    kept = [file for file in files if file.stem not in shots or file.suffix.lower() not in _CAMERA_COPIES]
    if copies := len(files) - len(kept):
        _logger.warning("%s: skipped pictures beside raw files of the same name: %d", path, copies)
    return kept
