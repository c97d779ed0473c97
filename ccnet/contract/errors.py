"""The error of every wrong input, and context managers that turn other errors into it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


class CCNetError(ValueError):
    """Wrong user input. The message is one line: what came, what was expected, what to do."""


class NoManifestError(CCNetError):
    """The error of a folder without a manifest; a command adds how to name another folder."""


def install_command(extra: str) -> str:
    """Return how to install an extra of this package, which is on no package index, for error messages."""
    return f'pip install ".[{extra}]" in a clone of the repository'


@contextlib.contextmanager
def prefix_errors(path: Path | str) -> Iterator[None]:
    """Put the path of a file before the message of each CCNetError that its content causes.

    Args:
        path: The file or the folder, or the name of another source, such as a camera's.

    Yields:
        Nothing.

    Raises:
        CCNetError: The error of the block, with the path before its message.
    """
    try:
        yield
    except CCNetError as error:
        raise CCNetError(f"{path}: {error}") from error


@contextlib.contextmanager
def decode_errors_as(path: Path, expected: str) -> Iterator[None]:
    """Turn any exception into a CCNetError: decoders raise nearly every type of exception on hostile bytes.

    Args:
        path: The file that is decoded.
        expected: Description of a correct file, for the message.

    Yields:
        Nothing.

    Raises:
        CCNetError: The block failed. A CCNetError of the block is raised unchanged.
    """
    try:
        yield
    except CCNetError:
        raise
    except Exception as error:
        why = " ".join((getattr(error, "strerror", None) or str(error)).split())[:200] or type(error).__name__
        raise CCNetError(f"{path}: damaged, missing, truncated or unsupported ({why}), expected {expected}") from error
