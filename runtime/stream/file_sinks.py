"""Sinks on disk: a folder of cubes, and a Zarr group. What is there is kept, and several streams may share them."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ccnet.contract import BANDS_NM, CCNetError, hidden_path, make_folder
from ccnet.runtime.io.cubes import CubeFormat, CubeWriter, as_field, cube_files, open_cube, recorded_source
from ccnet.runtime.io.files import as_text, optional_module
from ccnet.runtime.io.formats.cube_writer import publish_new

from .sink import ArrayWriter, CubeExistsError, as_texts, write_errors

_logger = logging.getLogger(__name__)

CHUNK_PX = 128
"""Side of a Zarr chunk, which holds all bands: 2 MB."""


class CubeFolder:
    """A folder with a file for each cube, under the frame's name or a number; a file that exists is never replaced.

    A cube is written under a hidden name and gets its own when it is whole. Numbers go on after the largest one in the
    folder, so that a camera that starts again loses nothing, and streams that share a folder take turns. Where another
    source's cube has the name, the cube's name is NAME-SOURCE, except for .npy, which does not say its source. A folder
    that the sink made and that is still empty at the end is removed.
    """

    def __init__(self, folder: Path, format: CubeFormat) -> None:
        self._new_folders = _missing_folders(folder)
        make_folder(folder)
        self._has_begun = False
        self.name, self._folder, self._format = str(folder), folder, format
        self._next = _next_number(path.stem for path in folder.iterdir())

    @contextmanager
    def cube(self, name: str | None, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
        """Yield the writer of a new file; CCNetError if its name is taken or it cannot be written."""
        source = metadata.get("source", "")
        if not self._has_begun:
            make_folder(self._folder)  # again: another stream that made it and had no frame may have removed it
            self._has_begun = True
        if name is not None:
            self._free_name(name, source)  # before the cube is computed
        hidden = hidden_path(self._folder / "cube", f".{self._format}")
        try:
            with open_cube(hidden, height, width, metadata) as writer:
                yield writer
            with write_errors(self.name):
                if name is None:
                    self._publish_numbered(hidden)
                else:
                    self._publish_named(hidden, name, source)
        finally:
            for part in cube_files(hidden):
                part.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folders that the sink made and that are empty; no file is open between two cubes."""
        _remove_empty(self._new_folders)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.{self._format}"

    def _free_name(self, name: str, source: str) -> str:
        """Return the first free name for a frame.

        Args:
            name: The frame's name.
            source: The stream's source.

        Returns:
            The name, or one with the source's where cubes of other sources have it.

        Raises:
            CubeExistsError: The folder has the frame's cube.
            CCNetError: The folder has another file of that name.
        """
        for candidate in _candidates(name, source):
            files = cube_files(self._path(candidate))
            taken = [path for path in files if path.exists()]
            if not taken:
                break
            if len(taken) < len(files):
                raise CCNetError(
                    f"{taken[0]}: exists without the rest of a cube and is kept; stream into another folder"
                )
            recorded = recorded_source(files[-1])
            if recorded is None or not source or _same_source(recorded, source):
                raise CubeExistsError(f"{files[-1]}: exists and is kept; stream into another folder to write it again")
        return candidate

    def _publish(self, hidden: Path, name: str) -> bool:
        return publish_new(list(zip(cube_files(hidden), cube_files(self._path(name)), strict=True)))

    def _publish_named(self, hidden: Path, name: str, source: str) -> None:
        try:
            while not self._publish(hidden, self._free_name(name, source)):
                _logger.debug("%s: another stream took a name", self.name)
        except CubeExistsError as error:
            raise CCNetError(f"{self._path(name)}: another process wrote it meanwhile, its file is kept") from error

    def _publish_numbered(self, hidden: Path) -> None:
        while not self._publish(hidden, f"{self._next:08}"):
            self._next += 1
        self._next += 1


class ZarrGroup:
    """A Zarr group with an array (31, H, W) for each cube, in chunks of 128×128 px; arrays that exist are kept.

    Arrays are numbered from 00000000 on, in the group's own Zarr format; their attributes have the metadata, the
    frame's ``name`` and ``wavelength`` in nm. A frame whose name and source an array had when the group was opened is
    there already. An array is written beside the group and renamed into it, so that a reader of the group finds
    complete cubes only, and several streams may write into one group. A new group begins with its first array; a folder
    that the sink made and that is still empty at the end is removed.
    """

    def __init__(self, path: Path) -> None:
        self._zarr = optional_module("zarr", "camera")
        self.name, self._path = str(path), path
        self._new_folders = _missing_folders(path)
        make_folder(path.parent)
        self._is_open = False
        self._format: int | None = None
        self._next, self._sources = 0, dict[str, list[str]]()
        with write_errors(self.name):
            path.mkdir(exist_ok=True)
            if any(path.iterdir()):
                self._open_group()
                self._next = _next_number(array.name for array in path.iterdir())
                self._sources = _sources_by_name(path)

    @contextmanager
    def cube(self, name: str | None, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[CubeWriter]:
        """Yield the writer of a new array; CCNetError if it cannot be written or the group has the frame's."""
        recorded = self._sources.get(as_text(name), []) if name is not None else []
        if any(_same_source(source, metadata.get("source", "")) for source in recorded):
            raise CubeExistsError(f"{self.name}: has the cube of {name} and keeps it; stream into another group")
        make_folder(self._path.parent)  # again: another stream that made it and had no frame may have removed it
        partial = hidden_path(self._path)
        shape = (len(BANDS_NM), height, width)
        chunks = (len(BANDS_NM), min(height, CHUNK_PX), min(width, CHUNK_PX))
        named = {} if name is None else {"name": as_text(name)}
        options: dict[str, Any] = {"shape": shape, "chunks": chunks, "dtype": "<f4"}
        if self._format is not None:
            options["zarr_format"] = self._format
        try:
            with write_errors(self.name):
                array = self._zarr.open_array(str(partial), mode="w", **options)
                array.attrs.update({"wavelength": list(BANDS_NM), **named, **as_texts(metadata)})
            yield ArrayWriter(self.name, array)
            with write_errors(self.name):
                if not self._is_open:
                    self._open_group()
                self._publish(partial)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def close(self) -> None:
        """Remove the folders that the sink made and that are empty; no file is open between two cubes."""
        _remove_empty(self._new_folders)

    def _open_group(self) -> None:
        """Open the group, or make it in the format of the arrays, and note its format."""
        options = {} if self._format is None else {"zarr_format": self._format}
        group = self._zarr.open_group(str(self._path), mode="a", **options)
        self._format = getattr(getattr(group, "metadata", None), "zarr_format", None)  # Zarr 2 knows one format
        self._is_open = True

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


def _missing_folders(folder: Path) -> list[Path]:
    """Return which of a folder and its parents do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not os.path.lexists(path)]


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders that are empty, the innermost first."""
    with suppress(OSError):  # not empty, or removed already
        for folder in folders:
            folder.rmdir()


def _candidates(name: str, source: str) -> Iterator[str]:
    """Yield names for a frame's cube: its own, then with its source's, then with a number as well."""
    yield name
    named = f"{name}-{Path(source).name or 'other'}"
    yield named
    yield from (f"{named}-{number}" for number in itertools.count(2))


def _same_source(recorded: str, source: str) -> bool:
    """Return True unless two descriptions are of different sources: the last part of a path is the same anywhere."""
    if _as_recorded(Path(recorded).name) != _as_recorded(Path(source).name):
        return False
    for path_of in (str, _without_escapes):
        with suppress(OSError, ValueError, OverflowError):  # not here any more, or no file: a camera, a URL
            return Path(path_of(recorded)).samefile(source)
    return True


def _as_recorded(source: str) -> str:
    """Return a source as the strictest format stores it, ENVI: one line of ASCII without braces."""
    return as_field(source).encode("ascii", "backslashreplace").decode()


def _without_escapes(recorded: str) -> str:
    """Return a source with the characters that its escapes stand for."""
    return re.sub(r"\\(?:x(..)|u(.{4})|U(.{8}))", lambda found: chr(int("".join(found.groups("")), 16)), recorded)


def _sources_by_name(group: Path) -> dict[str, list[str]]:
    """Return name of a frame → sources of the arrays in a Zarr group that have its name."""
    found: dict[str, list[str]] = {}
    for array in group.iterdir():
        attributes = _attributes(array)
        if isinstance(name := attributes.get("name"), str):
            found.setdefault(name, []).append(str(attributes.get("source", "")))
    return found


def _attributes(array: Path) -> dict[str, Any]:
    """Return the attributes of an array of Zarr 3 or 2; none where they cannot be read."""
    for file, key in (("zarr.json", "attributes"), (".zattrs", None)):
        try:
            document = json.loads((array / file).read_bytes())
            attributes = document[key] if key else document
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(attributes, dict):
            return attributes
    return {}


def _next_number(names: Iterable[str]) -> int:
    """Return the number after the largest that is a name of eight digits."""
    return max((int(name) for name in names if re.fullmatch(r"\d{8}", name)), default=-1) + 1
