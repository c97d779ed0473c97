"""The source of pictures: one file, or the files of a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ccnet.runtime.io.frames import frame_paths, read_frame, result_names

from .source import Pixels


class Pictures:
    """A picture, or the pictures that a folder holds when it is opened, sorted by name."""

    def __init__(
        self, path: Path, read: Callable[[Path], Pixels] = read_frame, describe: Callable[[Path], str] | None = None
    ) -> None:
        """Find the pictures.

        Args:
            path: File or folder.
            read: Reads one picture.
            describe: Describes its colour space; None where that does not matter.
        """
        paths = frame_paths([path])
        self._describe, self.colour = describe, ""
        self._read, self._named = read, iter(list(zip(result_names(paths), paths, strict=True)))
        self.expected: int | None = len(paths)

    def read(self) -> tuple[str, Pixels] | None:
        """Return the name and pixels of the next picture; CCNetError if it is damaged, None at the end."""
        if (named := next(self._named, None)) is None:
            return None
        name, path = named
        pixels = self._read(path)
        self.colour = self._describe(path) if self._describe else ""
        return name, pixels

    def close(self) -> None:
        """Do nothing: no file is open between two frames."""
