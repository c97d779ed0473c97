"""The frames of an archive: folders, patterns, lists in CSV or Parquet, and addresses of fsspec such as ``s3://``."""

from __future__ import annotations

import csv
import itertools
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ccnet.contract import CCNetError, decode_errors_as
from ccnet.runtime.io.files import optional_module, walk_files
from ccnet.runtime.io.formats.georeference import Georeference, read_georeference
from ccnet.runtime.io.frames import FRAME_SUFFIXES, Frame, read_frame

_LISTS = (".csv", ".parquet")
_PATTERN = frozenset("*?[")
PATH_COLUMN = "path"
"""Column of a list that names the frames."""


@dataclass(frozen=True)
class ArchiveFrame:
    """One frame of an archive.

    Attributes:
        name: Name of its results: its path below the source, with ``/``. It has the frame's suffix, so that
            no other frame changes it, such as a ``0.png`` that comes to ``0.npy``.
        location: Absolute path, or an address of fsspec.
    """

    name: str
    location: str


def find_frames(sources: Iterable[str]) -> list[ArchiveFrame]:
    """Return the frames of some sources.

    Args:
        sources: Folders (with those below them), patterns, files, lists of paths in a column ``path``, or addresses of
            folders and patterns.

    Returns:
        The frames, sorted by location; each has a name of its own.

    Raises:
        CCNetError: A source is missing or holds no frame, or two frames have one name.
    """
    found: dict[str, str] = {}
    for source in sources:
        root, locations = _locations(source)
        if not locations:
            raise CCNetError(f"{source}: holds no frame, expected one of {', '.join(FRAME_SUFFIXES)}")
        found |= {location: _below(location, root) for location in locations}
    if repeated := [name for name, count in Counter(found.values()).items() if count > 1]:
        raise CCNetError(f"{repeated[0]}: two frames have this name, from two sources; survey them one at a time")
    return [ArchiveFrame(found[location], location) for location in sorted(found)]


def read_archive_frame(location: str, *, as_stored: bool) -> tuple[Frame, Georeference | None]:
    """Read a frame from a path or an address, see ``read_frame``.

    Args:
        location: Path or address.
        as_stored: Return the stored values, for linear frames.

    Returns:
        (H, W, 3) uint8, uint16 or float32, and its georeference. World files beside an address are not fetched.

    Raises:
        CCNetError: The frame cannot be fetched or read; the message names the location.
    """
    if "://" not in location:
        return _read(Path(location), as_stored)
    with tempfile.TemporaryDirectory(prefix="ccnet-") as folder:
        suffix = PurePosixPath(location.partition("?")[0]).suffix.lower()  # a signed address has a query
        path = Path(folder, f"frame{suffix if suffix in FRAME_SUFFIXES else ''}")
        with _remote_errors(location):
            files, remote = optional_module("fsspec", "scale").core.url_to_fs(location)
            files.get_file(remote, str(path))
        try:
            return _read(path, as_stored)
        except CCNetError as error:
            raise CCNetError(str(error).replace(str(path), location)) from error


def _read(path: Path, as_stored: bool) -> tuple[Frame, Georeference | None]:
    frame = read_frame(path, as_stored=as_stored)
    return frame, read_georeference(path, *frame.shape[:2])


def _locations(source: str) -> tuple[str, list[str]]:
    """Return the part of the frames' locations that is no part of their names, and the locations."""
    if "://" in source:
        return _remote(source)
    path = Path(source).absolute()
    if path.is_dir():
        return str(path), [str(file) for file in walk_files(path) if file.suffix.lower() in FRAME_SUFFIXES]
    if path.suffix.lower() in _LISTS:
        folder = path.parent.resolve()  # as the entries are, so that they are below it
        return str(folder), [entry if "://" in entry else str((folder / entry).resolve()) for entry in _listed(path)]
    if path.exists():
        return str(path.parent), [str(path)]
    if _PATTERN & set(source):
        root = Path(*itertools.takewhile(lambda part: not _PATTERN & set(part), path.parts))
        return str(root), [str(file) for file in root.glob(str(path.relative_to(root))) if file.is_file()]
    raise CCNetError(f"{source}: no such file or folder, expected frames, a list (.csv, .parquet) or an address")


def _remote(source: str) -> tuple[str, list[str]]:
    root = source if not _PATTERN & set(source) else re.split(r"[^/]*[*?\[]", source)[0]
    with _remote_errors(source):
        files, path = optional_module("fsspec", "scale").core.url_to_fs(source)
        found = files.glob(path) if _PATTERN & set(path) else files.find(path)
        if found == [path]:  # the address of one frame
            root = source.rpartition("/")[0]
        return root, [files.unstrip_protocol(each) for each in found if each.lower().endswith(FRAME_SUFFIXES)]


@contextmanager
def _remote_errors(location: str) -> Iterator[None]:
    """Turn any exception into a CCNetError that names an address: each kind of storage has errors of its own."""
    try:
        yield
    except CCNetError:
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CCNetError(
            f"{location}: cannot be fetched ({why}), expected an address of fsspec, and its library such as s3fs"
        ) from error


def _below(location: str, root: str) -> str:
    """Return the path of a frame below its source, or all of it where it is not below; it never leads upwards."""
    path = location.partition("://")[2] or location
    shared = (root.partition("://")[2] or root).strip("/") + "/"
    below = PurePosixPath(path.lstrip("/").removeprefix(shared))
    return str(PurePosixPath(*(part for part in below.parts if part != "..")))


def _listed(path: Path) -> list[str]:
    """Return the paths of a list; a CCNetError names a row that has none."""
    with decode_errors_as(path, f"a list with the column {PATH_COLUMN!r}"):
        if path.suffix.lower() == ".parquet":
            table = optional_module("pyarrow.parquet", "scale").read_table(path, columns=[PATH_COLUMN])
            entries = table.column(PATH_COLUMN).to_pylist()
        else:
            with path.open(newline="", encoding="utf-8-sig") as file:
                entries = [row[PATH_COLUMN] for row in csv.DictReader(file)]
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, str) or not entry or "\0" in entry:
            raise CCNetError(f"{path}: row {number} is {entry!r}, expected a path in the column {PATH_COLUMN!r}")
    return entries
