"""Helpers of every file reader: optional libraries and the first look at a file."""

from __future__ import annotations

import faulthandler
import functools
import importlib
import logging
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ccnet.contract import CCNetError, install_command

_logger = logging.getLogger(__name__)

_redirection = threading.RLock()
# A child process gets the lock free and its own standard error: a fork waits for the end of the block
os.register_at_fork(
    before=_redirection.acquire, after_in_parent=_redirection.release, after_in_child=_redirection.release
)


@functools.cache
def optional_module(module: str, extra: str = "cli") -> Any:
    """Import an optional module.

    Args:
        module: The module's name, such as ``matplotlib.figure``.
        extra: The extra of this package that installs it.

    Returns:
        The module.

    Raises:
        CCNetError: It is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        if not isinstance(error, ModuleNotFoundError):  # such as a limit of memory that its libraries do not fit into
            why = " ".join(str(error).split())[:200]
            raise CCNetError(f"{package} is installed and cannot be loaded ({why}): install it again") from error
        raise CCNetError(f"{package} is not installed: {install_command(extra)}") from error


def read_head(path: Path, expected: str) -> bytes:
    """Read the first 16 bytes of a file.

    Args:
        path: The file.
        expected: What the file should be, for the error message.

    Returns:
        1 to 16 bytes.

    Raises:
        CCNetError: The file is missing, a directory, unreadable or empty.
    """
    try:
        if path.is_dir():
            raise CCNetError(f"{path}: is a directory, expected {expected}")
        if not path.is_file():
            raise CCNetError(f"{path}: no such file, expected {expected}")
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise CCNetError(f"{path}: cannot be read ({error.strerror}), expected {expected}") from error
    if not head:
        raise CCNetError(f"{path}: is empty, expected {expected}")
    return head


@contextmanager
def native_messages() -> Iterator[None]:
    """Send to the log what native libraries, such as libpng, print on standard error in a short block.

    What the interpreter prints there when it crashes is not redirected. A closed standard error stays closed.

    Yields:
        Nothing.
    """
    with _redirection:
        try:
            saved = os.dup(2)
        except OSError:  # closed: nothing can be printed there
            yield
            return
        try:
            with tempfile.TemporaryFile() as output:
                with _redirected(saved, output.fileno()):
                    yield
                output.seek(0)
                for line in output.read().decode(errors="replace").splitlines():
                    _logger.info("%s", line)
        finally:
            os.close(saved)


@contextmanager
def _redirected(saved: int, target: int) -> Iterator[None]:
    """Let descriptor 2 write to ``target``, and the interpreter's report of a crash to ``saved``."""
    reports_crashes = _reports_crashes()
    if reports_crashes:
        faulthandler.enable(saved)
    os.dup2(target, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        if reports_crashes:
            faulthandler.enable(2)


def _reports_crashes() -> bool:
    """Return whether the interpreter was started so that it reports crashes on standard error.

    A program that enabled faulthandler itself chose the file, which cannot be asked for: it stays as it is.
    """
    asked = sys.flags.dev_mode or "faulthandler" in sys._xoptions or os.environ.get("PYTHONFAULTHANDLER")
    return bool(asked) and faulthandler.is_enabled()


def as_text(name: str) -> str:
    """Return a file's name as text that every format can store: bytes that are not UTF-8 are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, sorted by folder and name, through links to folders and files.

    Hidden files and folders are left out, and a folder that links to one above it is entered once.

    Args:
        folder: The folder.

    Yields:
        The path of each file.
    """
    entered = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            path for name in sorted(names) if not name.startswith(".") and (path := Path(parent, name)).is_file()
        )


def visible_files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return the files of a folder with one of the suffixes, in any case, sorted by name.

    Hidden files, such as the ``._*`` that macOS leaves, folders with such a name and links to nothing are skipped; one
    line in the log counts them.

    Args:
        folder: The folder.
        suffixes: Suffixes in lower case, with the dot.

    Returns:
        The paths.
    """
    wanted = tuple(suffixes)
    candidates = sorted(path for path in folder.iterdir() if path.suffix.lower() in wanted)
    kinds = {path: _stray(path) for path in candidates}
    if strays := Counter(kind for kind in kinds.values() if kind):
        _logger.warning("%s: skipped %s", folder, ", ".join(f"{kind}: {count}" for kind, count in strays.items()))
    return [path for path, kind in kinds.items() if kind is None]


def _stray(path: Path) -> str | None:
    """Return why a path is no file to read; None for a file."""
    if path.name.startswith("."):
        return "hidden files"
    if path.is_dir():
        return "folders"
    return None if path.is_file() else "links to nothing, or no files"
